kernel_table: object
compiler: str
flags: str
