"""The golden vectors: MindSpore's numbers, every configuration, every step, and the slots at the end."""

import golden_data
import numpy as np
import pytest
from cases import golden_configs

import optimcore


@pytest.mark.parametrize("config", golden_configs(), ids=str)
def test_golden(config):
    optimizer = golden_data.build(config, optimcore)
    assert [p.name for p in optimizer.parameters] == list(config.order)
    for step in range(config.steps):
        assert optimizer(config.gradients(step)) is True
        for parameter, expected in zip(optimizer.parameters, config.expected(step), strict=True):
            np.testing.assert_allclose(parameter.asnumpy(), expected, **golden_data.TOLERANCE, err_msg=parameter.name)
    for slot, expected in config.expected_slots().items():
        check_slot(optimizer, slot, expected)


def check_slot(optimizer, slot, expected):
    actual = getattr(optimizer, slot)
    if not isinstance(actual, optimcore.ParameterTuple):
        np.testing.assert_allclose(actual, np.squeeze(expected[""]), rtol=1e-5, err_msg=slot)
        return
    for parameter, s in zip(optimizer.parameters, actual, strict=True):
        assert s.shape == expected[parameter.name].shape
        np.testing.assert_allclose(s.asnumpy(), expected[parameter.name], **golden_data.TOLERANCE, err_msg=s.name)
