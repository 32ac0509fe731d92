from slapos.recipes.debian_packages.base_system import Base, filter_status


def stanza(name: str, *fields: str, state: str = "install ok installed") -> str:
    return "\n".join(
        [
            f"Package: {name}",
            f"Status: {state}",
            "Architecture: amd64",
            *fields,
            "Description: x",
            " y",
        ]
    )


STATUS = "\n\n".join(
    [
        stanza("bash", "Essential: yes", "Pre-Depends: libc6 (>= 2.36), libtinfo6 | libtinfo5"),
        stanza("libc6", "Depends: libgcc-s1"),
        stanza("gcc-runtime", "Provides: libgcc-s1 (= 12)"),
        stanza("libtinfo6"),
        stanza("mawk", "Priority: required", state="deinstall ok config-files"),
        stanza("jq", "Priority: optional", "Depends: libc6"),
    ]
)


def names(status: str) -> list[str]:
    return [line.split()[1] for line in status.splitlines() if line.startswith("Package:")]


def test_the_base_is_what_every_installation_has_with_what_it_needs() -> None:
    assert names(filter_status(STATUS, Base.REQUIRED)) == [
        "bash",
        "gcc-runtime",
        "libc6",
        "libtinfo6",
    ]


def test_a_kept_package_keeps_all_its_lines() -> None:
    kept = filter_status(STATUS, Base.REQUIRED)
    assert "Description: x\n y\n\nPackage:" in kept


def test_the_base_can_be_all_or_nothing() -> None:
    assert filter_status(STATUS, Base.INSTALLED) == STATUS
    assert filter_status(STATUS, Base.NONE) == ""
