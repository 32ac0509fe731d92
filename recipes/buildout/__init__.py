"""What our profiles need and upstream's zc.buildout lacks (docs/reference/buildout.md).

`dumps` and `loads` turn a Python value into the text of an option and back.
"""

from slapos.recipes.buildout.values import dumps, loads

__all__ = ["dumps", "loads"]
