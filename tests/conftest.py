"""What all tests share."""

import sys

# A worker of pytest-xdist has a main module without a file, by which PySpark takes it for its own doctests and exits.
if not hasattr(sys.modules["__main__"], "__file__"):
    sys.modules["__main__"].__file__ = __file__
