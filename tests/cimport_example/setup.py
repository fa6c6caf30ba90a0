"""Build the modules of this folder against the installed optimcore: ``python setup.py build_ext --inplace``."""

from Cython.Build import cythonize
from setuptools import setup

import optimcore

setup(ext_modules=cythonize("*.pyx", include_path=[optimcore.get_include()]))
