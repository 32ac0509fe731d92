"""The real buildout with our engine: values, eggs, offline mode, `.installed.cfg`, errors."""

import shutil
import zipfile
from pathlib import Path

import pytest

from tests.integration.recipes.buildouts import distribution, failure, profile, run, served

RECIPES = {
    "values.py": """
import json, os

class Give:
    def __init__(self, buildout, name, options):
        with open(os.path.join(buildout["buildout"]["directory"], "given.json")) as stream:
            options["list"] = json.load(stream)
        options["set"] = {"b", "a"}
        options["number"] = 80
        options["nothing"] = None
        options["dollar"] = "${not:replaced}"

    def install(self):
        return []

    update = install


class Take:
    def __init__(self, buildout, name, options):
        self.options = options
        shown = [options.get(key) for key in options.get("show", "").split()]
        options["seen"] = repr([sorted(x) if isinstance(x, set) else x for x in shown])

    def install(self):
        print(f"installed {self.options.name}: {self.options['seen']}")
        return []

    def update(self):
        print(f"updated {self.options.name}")


class Fail:
    def __init__(self, buildout, name, options):
        pass

    def install(self):
        open("/does/not/exist")


class Peek:
    def __init__(self, buildout, name, options):
        self.value = buildout["give"]["list"]
        buildout["give"]["number"]

    def install(self):
        print(f"peeked {self.value}")
        return []

    def update(self):
        print("still the same")
""",
}
ENTRY_POINTS = "[zc.buildout]\n" + "".join(
    f"{name.lower()} = tried:{name}\n".replace("tried:", "tried.values:")
    for name in ("Give", "Take", "Fail", "Peek")
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory in which the recipes of the distribution `tried` are eggs in eggs/v5."""
    egg = tmp_path / "eggs" / "v5" / "tried-1-py3.egg"
    egg.mkdir(parents=True)
    wheel = distribution(tmp_path, "tried", RECIPES, ENTRY_POINTS)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(egg)
    wheel.unlink()
    (tmp_path / "given.json").write_text('["x", {"y": [1, true]}]')
    return tmp_path


VALUES = """
parts = take mixed
offline = true
[give]
recipe = tried:give
[take]
recipe = tried:take
list = ${give:list}
set = ${give:set}
nothing = ${give:nothing}
dollar = ${give:dollar}
port = ${give:number}
show = list set nothing dollar port
[mixed]
recipe = tried:take
url = http://h:${give:number}/${give:list}
show = url
"""


def test_any_value_goes_from_section_to_section(directory: Path) -> None:
    profile(directory, VALUES)
    output = run(directory).output
    shown = [["x", {"y": [1, True]}], ["a", "b"], None, "${not:replaced}", 80]
    assert f"installed take: {shown}" in output
    assert "http://h:80/!py![" in output


def test_a_second_run_updates_and_a_changed_value_installs_again(directory: Path) -> None:
    profile(directory, VALUES)
    run(directory)
    before = (directory / ".installed.cfg").read_text()
    again = run(directory).output
    assert "updated take" in again
    assert "installed" not in again
    assert (directory / ".installed.cfg").read_text() == before
    (directory / "given.json").write_text('["x", {"y": [2, true]}]')
    changed = run(directory).output
    assert "Uninstalling take." in changed
    assert "[2, True]" in changed


def test_a_part_is_installed_again_when_what_its_recipe_read_elsewhere_changes(
    directory: Path,
) -> None:
    profile(directory, "parts = peek\n[give]\nrecipe = tried:give\n[peek]\nrecipe = tried:peek")
    run(directory, "-o")
    assert "still the same" in run(directory, "-o").output
    assert "still the same" in run(directory, "-o", "-v").output
    (directory / "given.json").write_text('["other"]')
    assert "peeked ['other']" in run(directory, "-o").output


def test_a_buildout_that_is_killed_takes_up_what_it_had_installed(directory: Path) -> None:
    profile(directory, VALUES.replace("take mixed", "take fail") + "[fail]\nrecipe = tried:fail")
    message = failure(directory)
    assert "[fail] [Errno 2] No such file or directory: '/does/not/exist'" in message
    profile(directory, VALUES)
    again = run(directory).output
    assert "updated take" in again
    assert "installed mixed" in again


def test_a_part_goes_although_its_recipe_is_gone(directory: Path) -> None:
    profile(directory, VALUES)
    run(directory)
    shutil.rmtree(directory / "eggs")
    profile(directory, "parts =\noffline = true")
    assert "Uninstalling take without its recipe" in run(directory).output
    assert not (directory / ".installed.cfg").exists()


def test_verbose_output_shows_values(directory: Path) -> None:
    profile(directory, VALUES)
    assert "port = !py!80" in run(directory, "-vv").output


def test_the_directory_of_eggs_may_already_end_with_its_version(directory: Path) -> None:
    profile(directory, f"parts =\neggs-directory = {directory}/eggs/v5")
    run(directory)
    assert not (directory / "eggs" / "v5" / "v5").exists()


def test_zc_recipe_egg_installs_a_wheel_and_uses_it_offline(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    distribution(wheels, "greeting", {"hello.py": "TEXT = 'hello from an egg'"})
    software, instance = tmp_path / "software", tmp_path / "instance"
    software.mkdir()
    instance.mkdir()
    common = "[py]\nrecipe = zc.recipe.egg\neggs = greeting\ninterpreter = py\n"
    profile(
        software,
        f"parts = py\nfind-links = {wheels}\nindex = {wheels}\nallow-hosts =\nnewest = false\n"
        + common,
    )
    run(software)
    for wheel in wheels.iterdir():
        wheel.unlink()
    profile(
        instance,
        f"parts = py\noffline = true\neggs-directory = {software}/eggs/v5\n" + common,
    )
    run(instance)
    script = (instance / "bin" / "py").read_text()
    assert str(software / "eggs" / "v5" / "greeting-1-py3") in script


def test_a_section_knows_the_directory_of_its_profile(directory: Path) -> None:
    (directory / "sub").mkdir()
    base = "[macro]\nhere = ${:_profile_base_location_}/${:file}\nfile = macro.txt"
    profile(directory / "sub", base, "base.cfg")
    profile(
        directory,
        "extends = sub/base.cfg\nparts = take\noffline = true\n"
        "[own]\n<= macro\nfile = own.txt\n"
        "[take]\nrecipe = tried:take\na = ${macro:here}\nb = ${own:here}\nshow = a b",
    )
    output = run(directory).output
    assert f"['{directory}/sub/macro.txt', '{directory}/own.txt']" in output
    assert "_profile_base_location_" not in output


def test_profiles_are_extended_over_http_and_kept(tmp_path: Path) -> None:
    remote, local = tmp_path / "remote", tmp_path / "local"
    (remote / "sub").mkdir(parents=True)
    local.mkdir()
    profile(remote, "extends = sub/b.cfg ../c.cfg", "a.cfg")
    profile(remote / "sub", "[s]\nx = ${:_profile_base_location_}/f", "b.cfg")
    profile(remote, "[t]\ny = ${s:x}", "c.cfg")
    with served(remote) as (url, asked):
        profile(local, f"extends = {url}/a.cfg\nextends-cache = cache\nparts =\n[u]\nz = ${{t:y}}")
        run(local, "buildout:parts=")
        assert sorted(asked) == ["/a.cfg", "/c.cfg", "/sub/b.cfg"]
        run(local, "-N")
        assert len(asked) == 3
    run(local, "-o")
    assert len(list((local / "cache").iterdir())) == 3


def test_bootstrap_writes_a_script_that_runs_this_buildout(tmp_path: Path) -> None:
    profile(tmp_path, "parts =")
    run(tmp_path, "bootstrap")
    script = tmp_path / "bin" / "buildout"
    assert "slapos.recipes.buildout.main" in script.read_text()
    assert script.stat().st_mode & 0o111


SERVICE = """
parts = service
offline = true
[config]
recipe = slapos:template
output = ${buildout:directory}/config
inline = size = SIZE
[service]
recipe = slapos:wrapper
wrapper-path = ${buildout:directory}/service/it
command-line = sleep 1
hash-files = ${config:output}
"""


def test_a_changed_configuration_renames_the_service_that_uses_it(tmp_path: Path) -> None:
    names = []
    for size in "12":
        profile(tmp_path, SERVICE.replace("SIZE", size))
        run(tmp_path)
        assert "nstalling" not in run(tmp_path).output
        (script,) = (tmp_path / "service").iterdir()
        names.append(script.name)
    assert names[0] != names[1]
    profile(tmp_path, "parts =")
    run(tmp_path)
    assert list((tmp_path / "service").iterdir()) == []


def test_a_template_is_downloaded_and_checked(tmp_path: Path) -> None:
    remote, local = tmp_path / "remote", tmp_path / "local"
    remote.mkdir()
    local.mkdir()
    (remote / "in").write_text("text")
    part = "parts = a\n[a]\nrecipe = slapos:template\noutput = ${buildout:directory}/out\n"
    with served(remote) as (url, _):
        profile(local, f"{part}url = {url}/in\nmd5sum = {'0' * 32}")
        assert f"{url}/in has not the wanted content" in failure(local)
        profile(local, f"{part}url = {url}/in\nmd5sum = 1cb251ec0d568de6a929b520c4aed8d1")
        run(local)
        profile(local, f"{part}url = {url}/gone")
        assert f"cannot download {url}/gone: HTTP Error 404" in failure(local)
    assert "in offline mode" in failure(local, "-o")


ERRORS = {
    "a line that is none": ("parts =\nnonsense", ["buildout.cfg", "line 3: 'nonsense"]),
    "a recipe of an unknown package": (
        "parts = a\n[a]\nrecipe = no.such.package:x",
        ["[a] (", "buildout.cfg)", "recipe = no.such.package:x"],
    ),
    "a recipe that its package lacks": (
        "parts = a\n[a]\nrecipe = slapos:nonsense",
        ["slapos has no recipe 'nonsense'", "wrapper"],
    ),
    "a missing section": (
        "parts = a\n[a]\nrecipe = tried:take\nx = ${bb:y}\n[b]\n",
        ["${bb:y} in [a] (", "buildout.cfg), option x: there is no section [bb]", "mean 'b'"],
    ),
    "a missing option": (
        "parts = a\n[a]\nrecipe = tried:take\nx = ${b:hots}\n[b]\nhost = 1",
        ["${b:hots} in [a] (", "option x: the section [b] has no option 'hots'", "mean 'host'"],
    ),
    "options that refer to each other": (
        "parts = a\n[a]\nrecipe = tried:take\nx = ${:y}\ny = ${:x}",
        ["circle: ${a:x} → ${a:y} → ${a:x}"],
    ),
    "a part that is no section": ("parts = a", ["a"]),
    "a section without a recipe": ("parts = a\n[a]\nx = 1", ["[a] (", "no option 'recipe'"]),
    "a value that is none": (
        "parts = a\n[a]\nrecipe = tried:take\nshow = x\nx = !py!os.exit()",
        ["[a] (", "option x: after !py! comes a Python literal"],
    ),
    "a profile that is not there": ("extends = gone.cfg", ["gone.cfg, which "]),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_is_wrong_in_a_profile_is_told(directory: Path, name: str) -> None:
    text, parts = ERRORS[name]
    profile(directory, text)
    message = failure(directory, "-o")
    for part in parts:
        assert part in message


def test_a_failed_download_names_the_url(tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    remote.mkdir()
    with served(remote) as (url, _):
        profile(tmp_path, f"extends = {url}/gone.cfg")
        message = failure(tmp_path)
    assert f"the profile {url}/gone.cfg, which {tmp_path}/buildout.cfg extends" in message
    assert "HTTP Error 404" in message


def test_a_list_of_installed_parts_that_was_torn_is_made_anew_and_removes_nothing(
    directory: Path,
) -> None:
    profile(directory, "parts = a\n[a]\nrecipe = tried:take\nshow = x\nx = 1")
    run(directory, "-o")
    path = directory / ".installed.cfg"
    whole = path.read_bytes()
    (directory / "kept").write_text("data")
    for torn in (b"", whole[:-5], b"\0" * len(whole), b"damaged\n"):
        path.write_bytes(torn)
        run(directory, "-o")
        assert path.read_bytes() == whole
        assert (directory / ".installed.cfg.damaged").read_bytes() == torn
        assert (directory / "kept").read_text() == "data"
