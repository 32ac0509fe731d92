"""What every buildout finds out for itself, found out at the import: for a process that is forked.

It is about what is installed beside this package, which stays as it is as long as the process does.
"""

from slapos.recipes.buildout.engine import pkg_resources

for _distribution in pkg_resources.working_set.resolve([pkg_resources.Requirement("slapos")]):
    _distribution.get_entry_map()
