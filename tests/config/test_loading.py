"""What is refused, with which line, key and sentence."""

# ruff: noqa: E501 - sentences are quoted whole
from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from asi_watch.config import ConfigError, load_config, parse_config


def problems_of(text: str | bytes) -> list[str]:
    encoded = text.encode() if isinstance(text, str) else text
    with pytest.raises(ConfigError) as caught:
        parse_config(encoded, "asi.yaml", Path("/base"))
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return [str(problem) for problem in caught.value.problems]


def of_camera(settings: str) -> list[str]:
    """Problems of settings that begin in line 5."""
    lines = "\n".join(f"    {line}" for line in settings.splitlines())
    return problems_of(f"cameras:\n  roof:\n    watch: /in\n    output: /out\n{lines}\n")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            "bracket: {grace: 10}",
            "bracket.grace: '10' has no unit; did you mean 10s?",
        ),
        ("bracket: {grace: true}", "bracket.grace: 'true' is not a duration; write a number and its unit, such as 500ms, 30s, 2min, 24h or 1d"),
        (
            "bracket: {round_to: 1:30}",
            "bracket.round_to: '1:30' is not a duration; write a number and its unit, such as "
            "500ms, 30s, 2min, 24h or 1d",
        ),
        (
            "bracket: {round_to: 500ms}",
            "bracket.round_to: 500ms is out of range; it must be 1s…24h",
        ),
        (
            "bracket: {round_to: 1500ms}",
            "bracket.round_to: 1500ms is no whole number of seconds, which products are named by; "
            "write one such as 30s",
        ),
        (
            "bracket: {offset: auto}",
            "bracket.offset: 'auto' is no longer possible: the slot of a file must not depend on"
            " what came before; write 0s, and `asi-watch check` proposes an offset such as -3s where"
            " the newest brackets need one",
        ),
        (
            "retention: {exposures: {max_size: 100GB}}",
            "retention.exposures.max_size: is no longer possible; write max_age, such as 30d, or"
            " keep_free, such as 50GB",
        ),
        (
            "bracket: {offset: -30s}",
            "bracket.offset: -30s must be smaller than round_to, which is 30s",
        ),
        (
            "bracket: {exposures: [80, 160]}",
            "bracket.min_exposures: 3 can never be reached; a bracket has 2 exposures",
        ),
        (
            "bracket: {exposures: [80, 80.0, 160, 320]}",
            "bracket.exposures: 80: every exposure time must be given once",
        ),
        (
            "bracket: {exposures: [80, -1, x]}",
            "bracket.exposures: [80, -1, 'x']: write a list of 2…64 exposure times above 0, such as "
            "[80, 160, 320], their count, or auto",
        ),
        (
            "bracket: {exposures: [0100, 160, 320]}",
            "bracket.exposures[0]: YAML reads 0100 as an octal number; write it without the "
            "leading 0",
        ),
        ("bracket: {exposures: 1}", "bracket.exposures: 1: write a list of 2…64 exposure times above 0, "
         "such as [80, 160, 320], their count, or auto"),
        (
            "bracket: {exposures: all}",
            "bracket.exposures: 'all': write a list of 2…64 exposure times above 0, such as "
            "[80, 160, 320], their count, or auto",
        ),
        ("bracket: {min_exposures: 1}", "bracket.min_exposures: '1' is out of range; it must be 2 or more"),
        ("bracket: {min_exposures: 2.5}", "bracket.min_exposures: '2.5' is wrong; it must be a whole number"),
        (
            "bracket: {late: yes}",
            "bracket.late: 'yes' is unknown; it must be one of remerge, ignore",
        ),
        (
            "bracket: {late: re-merge}",
            "bracket.late: 're-merge' is unknown; it must be one of remerge, ignore; "
            "did you mean remerge?",
        ),
        ("bracket:", "bracket: is empty; it must be a mapping of keys to values, or be left out"),
        ("bracket: 30s", "bracket: '30s' is wrong; it must be a mapping of keys to values"),
        ("braket: {}", "braket: this key is unknown; did you mean bracket?"),
        ("Watch-Mode: auto", "Watch-Mode: this key is unknown; did you mean watch_mode?"),
        (
            "round_to: 30s",
            "round_to: this key does not belong here; did you mean cameras.<name>.bracket.round_to?",
        ),
        (
            "bracket: {timezone: UTC}",
            "bracket.timezone: this key does not belong here; did you mean cameras.<name>.timezone or cameras.<name>.products.timezone?",
        ),
        (
            "recalibrate: {colour: blue}",
            "recalibrate.colour: this key is unknown; known here are every, brackets, sky_disc",
        ),
        ('merge: {low_clip: "5"}', "merge.low_clip: '5' is wrong; it must be a whole number"),
        ("merge: {low_clip: 5.0}", "merge.low_clip: '5.0' is wrong; it must be a whole number"),
        ('tone: {gamma: "2.2"}', "tone.gamma: '2.2' is wrong; it must be a number"),
        (
            "products: [{format: jp2, lossless: 1}]",
            "products[0].lossless: '1' is wrong; it must be true or false",
        ),
        ("tone: {gamma: .inf}", "tone.gamma: '.inf' is wrong; it must be a finite number"),
        ("tone: {gamma: 0}", "tone.gamma: '0' is out of range; it must be 0.1 or more"),
        (
            "merge: {low_clip: 250, high_clip: 5}",
            "merge.low_clip: 250 must be smaller than high_clip, which is 5",
        ),
        (
            "tone: {scale: [3, 1]}",
            "tone.scale: [3, 1]: write curve, bracket, or two numbers, the smaller first, such as [-6.5, 4.0]",
        ),
        *(
            (
                f"recalibrate: {{sky_disc: {value}}}",
                f"recalibrate.sky_disc: {shown}: write auto, null, or column, row and radius of the"
                " sky disc in pixels, such as [1024, 1010, 980]",
            )
            for value, shown in (("round", "'round'"), ("[5, 5]", "[5, 5]"), ("[5, 5, 0]", "[5, 5, 0]"))
        ),
        (
            "merge: {sky_disc: [5, 5]}",
            "merge.sky_disc: [5, 5]: write null, or column, row and radius of the sky disc in"
            " pixels, such as [1024, 1010, 980]",
        ),
        (
            "merge: {sky_disc: auto}",
            "merge.sky_disc: 'auto' is for recalibrate.sky_disc alone: products need a circle that"
            " never changes; `asi-watch calibrate` and `asi-watch response show` print the one that"
            " is found",
        ),
        (
            "merge: {algorithm: mertens}\nproducts: [{format: exr}]",
            "merge.algorithm: mertens gives no radiance for exr; choose debevec_custom",
        ),
        (
            "merge: {algorithm: debevec}\nproducts: [{format: exr, uncertainty: true}]",
            "merge.algorithm: OpenCV's debevec gives no uncertainty;"
            " choose debevec_custom or debevec_exact",
        ),
        ("products: []", "products: is empty; it must hold at least 1"),
        ("products: jpg", "products: 'jpg' is wrong; it must be a list, such as [{format: jpg}]"),
        ("products: [jpg]", "products[0]: 'jpg' is wrong; it must be a mapping of keys to values"),
        (
            "products: [{format: jpeg}]",
            "products[0].format: 'jpeg' is unknown; it must be one of jpg, png, jp2, exr, tiff, hdr; "
            "did you mean jpg?",
        ),
        (
            "products: [{quality: 5}]",
            "products[0].format: is missing; give one of jpg, png, jp2, exr, tiff, hdr",
        ),
        (
            "products: [{format: png, quality: 5}]",
            "products[0].quality: is an option of jpg, not of png; remove it",
        ),
        (
            'products: [{format: jpg, name: "{timestamp:%Y%m%d%H%M%S}_7"}]',
            "products: '{timestamp:%Y%m%d%H%M%S}_7' is a name that an exposure may have, such as"
            " 20101010101010_7.jpg; end it with other text, such as _0",
        ),
        (
            'products: [{format: jpg, name: "a/{timestamp:%Y%m%d%H%M%S}"}]',
            "products[0].name: 'a/{timestamp:%Y%m%d%H%M%S}': a file name holds no '/'; sub-folders"
            " need no name here",
        ),
        (
            'products: [{format: jpg, name: "{camera}_{timestamp:%Y%m%d}"}]',
            "products[0].name: '{camera}_{timestamp:%Y%m%d}': the timestamp needs %H, %M and %S; a"
            " complete template is '{timestamp:%Y%m%d%H%M%S}_{exposure}'",
        ),
        (
            "products: [{format: jpg, timezone: Europe/Berlin}]",
            "products[0].timezone: 'Europe/Berlin' changes its offset within the year: an hour of"
            " names would come twice; write a fixed offset, such as Etc/GMT-1",
        ),
        (
            "products: [{format: jpg}, {format: jpg}]",
            "products: two of format jpg have one path; give one another name or output",
        ),
        (
            'products: [{format: jpg, latest: true}, {format: jpg, latest: true, name: "{timestamp:%Y%m%d%H%M%S}_b"}]',
            "products: two of format jpg would be latest.jpg of one folder; keep latest: true for"
            " one of them",
        ),
        (
            "exposure_labels: {02: 500}",
            'exposure_labels.02: YAML reads the key 02 as int, not as text; write it as "02"',
        ),
        (
            'exposure_labels: {"0": 0}',
            "exposure_labels: {'0': 0}: write labels and exposure times above 0, such as "
            '{"0": 2000, "02": 500}; null: leave out',
        ),
        (
            "exposure_labels: [0, 2]",
            'exposure_labels: [0, 2]: write labels and exposure times above 0, such as {"0": 2000, "02": 500}; null: leave out',
        ),
        (
            'filename: "{timestamp:%Y%m%d%H%M%Q}_{exposure}"',
            "filename: '{timestamp:%Y%m%d%H%M%Q}_{exposure}': '%Q' is unknown; "
            "known are %Y %y %m %d %j %H %M %S %f %z",
        ),
        (
            "exposure_labels: {x_hdr: 5}",
            "filename: '{timestamp:%Y%m%d%H%M%S}_{exposure}': names ending in "
            "'_hdr' are for the merged products",
        ),
        (
            "timezone: GMT+1",
            "timezone: 'GMT+1' is no time zone; write UTC or a fixed offset such as Etc/GMT-1, "
            "which is one hour ahead of UTC (the sign is reversed)",
        ),
        ("timezone: 1", "timezone: '1' is no time zone; write UTC or a fixed offset such as Etc/GMT-1, "
         "which is one hour ahead of UTC (the sign is reversed)"),
        ("extensions: jpg", "extensions: 'jpg' is no list of extensions; write one such as [jpg, png]"),
        (
            "extensions: [jpg, cr2]",
            "extensions: 'cr2' cannot be read; known are jpg, jpeg, jpe, jfif, png, jp2, webp, tif, "
            "tiff, dng, fits, fit, fts",
        ),
        (
            "response: linear\nmerge: {algorithm: mertens}",
            "merge.algorithm: 'mertens' does not go with `response: linear`; remove this key",
        ),
        (
            "response: /r.npz\nmerge: {algorithm: linear}",
            "response: a linear merge takes no response curve; write linear here or remove this key",
        ),
        (
            "merge: {sensor: {black: 300, white: 256}}",
            "merge.sensor.white: 256 must be larger than black, which is 300",
        ),
        ("response: 5", "response: 5 is no path; write it in full, such as /srv/asi/roof"),
        ("response: ~/g.npz", "response: '~/g.npz': '~' is not replaced here; write the path in full"),
        ("scan: {every: 0s}", "scan.every: 0s is out of range; it must be 1s…24h"),
        ("watch: /else", "watch: is given a second time, first in line 3; remove one"),
        ("response: !!python/name:os.system x", "response: the tag !!python/name:os.system is not "
         "allowed here; remove it"),
    ],
)  # fmt: skip
def test_problems_of_a_camera(settings: str, problem: str) -> None:
    found = of_camera(settings)
    assert [text.split(": cameras.roof.", 1)[1] for text in found] == [problem]
    assert found[0].startswith("asi.yaml:")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "asi.yaml: the file is empty; it needs at least cameras"),
        ("# nothing\n", "asi.yaml: the file is empty; it needs at least cameras"),
        ("hello", "asi.yaml:1: 'hello' is wrong; it must be a mapping of keys to values"),
        ("- a\n- b", "asi.yaml:1: ['a', 'b'] is wrong; it must be a mapping of keys to values"),
        ("state_dir: /s", "asi.yaml:1: cameras: is missing; give a mapping of camera names to their "
         "settings"),
        ("log: {}\ncameras: {}", "asi.yaml:2: cameras: is empty; it must hold at least 1"),
        ("cameras: [a]", "asi.yaml:1: cameras: ['a'] is wrong; it must be a mapping of names to settings"),
        ("cameras:\n\troof:", "asi.yaml:2: this is no YAML, column 1: a tab; YAML is "
         "indented with spaces only"),
        ("a: b: c", "asi.yaml:1: this is no YAML, column 5: a ':' is not expected here; is the line "
         "above indented as it should be, and text that holds ': ' in quotes?"),
        ("a: [1, 2\nb: 3", "asi.yaml:2: this is no YAML, column 2: a ',' or the closing bracket of a "
         "list or mapping is missing"),
        ('a: "b\nc: d', "asi.yaml:2: this is no YAML, column 5: a quote is opened and never closed"),
        ("a: *b", "asi.yaml:1: this is no YAML, column 4: an alias (*) without its anchor (&) "
         "further up"),
        ("a: 1\n---\nb: 2", "asi.yaml:2: this is no YAML, column 1: a second document ('---'); one "
         "file holds one configuration"),
        ("a: %b", "asi.yaml:1: this is no YAML, column 4: text that begins with this character must "
         "stand in quotes"),
        (b"a: 1\nb: caf\xe9\n", "asi.yaml:2: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        (b"a: 1\nb: \0\n", "asi.yaml:2: the character U+0000 cannot stand in a YAML file; remove it"),
        ("[" * 500, "asi.yaml: lists or mappings nest too deeply"),
        ("a: " + "[" * 60 + "]" * 60, "asi.yaml: lists or mappings nest more than 40 deep"),
        ("a: &a [*a]", "asi.yaml: lists or mappings nest more than 40 deep"),
        ("a: &a {<<: *a}", "asi.yaml: lists or mappings nest more than 40 deep"),
        ("a: &a [1, 2, 3, 4, 5, 6, 7, 8]\n" + "".join(
            f"{new}: &{new} [{', '.join([f'*{old}'] * 8)}]\n"
            for old, new in zip("abcdefgh", "bcdefghi", strict=True)
        ), "asi.yaml: the file stands for more than 50000 values"),
    ],
)  # fmt: skip
def test_problems_of_the_file(text: str | bytes, problem: str) -> None:
    assert problems_of(text) == [problem]


def test_problems_of_reading(tmp_path: Path) -> None:
    def said(path: Path) -> str:
        with pytest.raises(ConfigError) as caught:
            load_config(path)
        return str(caught.value).removeprefix(str(tmp_path))

    assert said(tmp_path / "none.yaml") == "/none.yaml: cannot be read: No such file or directory"
    assert said(tmp_path).endswith(": cannot be read: Is a directory")
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * 1_000_001)
    assert said(large) == "/large.yaml: is larger than 1 MB: this is no configuration"


def test_all_problems_at_once_in_the_order_of_the_file() -> None:
    assert problems_of(
        """\
state_dr: /x
log: {level: verbose}
memory_budget: 512
workers: 0
cameras:
  roof:
    watch: /in
    bracket: {round_to: 30, graze: 5s}
    products: [{format: bmp}, {format: png, quality: 5}]
  bad name: {watch: /b, output: /b}
"""
    ) == [
        "asi.yaml:1: state_dr: this key is unknown; did you mean state_dir?",
        "asi.yaml:2: log.level: 'verbose' is unknown; it must be one of debug, info, warning, error",
        "asi.yaml:3: memory_budget: '512' has no unit; did you mean 512MB?",
        "asi.yaml:4: workers: 0: write auto or a whole number of threads, 1…256",
        "asi.yaml:6: cameras.roof.output: is missing; give the folder for the HDR images, such as "
        "/srv/asi/roof-hdr",
        "asi.yaml:8: cameras.roof.bracket.round_to: '30' has no unit; did you mean 30s?",
        "asi.yaml:8: cameras.roof.bracket.graze: this key is unknown; did you mean grace?",
        "asi.yaml:9: cameras.roof.products[0].format: 'bmp' is unknown; it must be one of jpg, png, "
        "jp2, exr, tiff, hdr",
        "asi.yaml:9: cameras.roof.products[1].quality: is an option of jpg, not of png; remove it",
        "asi.yaml:10: cameras.bad name: 'bad name' is no name for a camera; use up to 64 letters, "
        "digits, '-' and '_', a letter or digit first",
        "asi.yaml:10: cameras.bad name.output: '/b' is the watched folder itself; give the products "
        "their own",
    ]


@pytest.mark.parametrize(
    ("a", "b", "problems"),
    [
        (("/in/a", "/out/a"), ("/in/b", "/out/b"), []),
        (("/in/a", "/out"), ("/in/b", "/out"), ["b.output: '/out': camera a writes there too"]),
        (("/in/a", "/out"), ("/in/b", "/x/../out"), ["b.output: '/out': camera a writes there too"]),
        (("/in", "/out/a"), ("/in", "/out/b"), ["b.watch: '/in': camera a watches the same files"]),
        (("/in", "/out/a"), ("/in/b", "/out/b"), ["b.watch: '/in/b': camera a watches the same"]),
        (("/in/a", "/out"), ("/in", "/out/b"), ["b.watch: '/in': camera a watches the same files"]),
        (("/in/a", "/in/a/hdr"), ("/in/b", "/out/b"), []),
        (("/in/a", "/out"), ("/in/b", "/in/a/b"), ["b.output: '/in/a/b' lies in the folder that"]),
        (("/in/a", "/in/b"), ("/in/b", "/out"), ["a.output: '/in/b' lies in the folder that"]),
        (("/in/a", "/in/a/"), ("/in/b", "/out"), ["a.output: '/in/a' is the watched folder itself"]),
        (("/", "/out"), ("/ab", "/cd"), [
            "state_dir: '/state' lies in the folder that camera a watches",
            "b.watch: '/ab': camera a watches the same files",
            "b.output: '/cd' lies in the folder that camera a watches",
        ]),
    ],
)  # fmt: skip
def test_folders_that_must_not_meet(
    a: tuple[str, str], b: tuple[str, str], problems: list[str]
) -> None:
    text = f"""\
state_dir: /state
cameras:
  a: {{watch: {a[0]}, output: {a[1]}}}
  b: {{watch: {b[0]}, output: {b[1]}}}
"""
    if not problems:
        parse_config(text.encode(), "asi.yaml", Path("/"))
        return
    found = [p.split(": ", 1)[1].removeprefix("cameras.") for p in problems_of(text)]
    assert len(found) == len(problems)
    for problem in problems:
        assert any(text.startswith(problem) for text in found), found


def test_links_do_not_hide_that_folders_meet(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    text = f"cameras: {{roof: {{watch: {tmp_path}/in, output: {tmp_path}/link}}}}"
    assert "is the watched folder itself" in problems_of(text)[0]


def test_one_folder_for_two_cameras_with_different_names() -> None:
    names = [f'filename: "{name}_{{timestamp:%Y%m%d%H%M%S}}_{{exposure}}"' for name in "ab"]
    text = f"""\
cameras:
  a: {{watch: /in, output: /out/a, {names[0]}}}
  b: {{watch: /in, output: /out/b, {names[1]}}}
"""
    assert len(parse_config(text.encode(), "asi.yaml", Path("/")).config.cameras) == 2


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        ("", "filename: '{timestamp:%Y%m%d%H%M%S}_{exposure}'", True),
        ("exposure_unit: ms", "exposure_labels: {x: 5}, exposure_labels_only: false", True),
        ("filename: '{timestamp:%y%m%d%H%M%S}_{exposure}'", "", False),
        ("filename: '{timestamp:%Y%d%m%H%M%S}_{exposure}'", "", True),
        ("exposure_labels: {a: 5}", "exposure_labels: {a: 7}", True),
        ("exposure_labels: {a: 5}", "exposure_labels: {b: 7}", False),
        ("filename: 'a_{timestamp:%Y%m%d%H%M%S}_{exposure}'", "", False),
    ],
)
def test_two_cameras_on_one_folder_need_names_that_differ(
    first: str, second: str, alike: bool
) -> None:
    text = f"""\
cameras:
  a: {{watch: /in, output: /out/a, {first}}}
  b: {{watch: /in, output: /out/b, {second}}}
"""
    if not alike:
        parse_config(text.encode(), "asi.yaml", Path("/"))
        return
    assert [p for p in problems_of(text) if "camera a watches the same files" in p]


def test_the_line_is_that_of_the_last_of_two_keys() -> None:
    found = of_camera("bracket: {grace: 5s}\nbracket:\n  late: no")
    assert [text.split(": ")[0] for text in found] == ["asi.yaml:6", "asi.yaml:7"]


def test_undecodable_names_and_line_ends_stay_on_one_printable_line() -> None:
    found = problems_of('"a\\nb\\udcff": 1\ncameras: {roof: {watch: /in, output: /out}}')
    assert found == [
        "asi.yaml:1: a\\nb\\udcff: a key must be text in UTF-8",
        "asi.yaml:1: a\\nb\\udcff: this key is unknown; known here are state_dir, log, workers, "
        "memory_budget, order, disk, shutdown_timeout, cameras",
    ]


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(["cameras", "roof", "watch", "output", "bracket", "products", "merge"])
            | st.text(max_size=3),
            children,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(plain)
def test_any_values_are_read_or_refused(value: object) -> None:

    for data in (value, {"cameras": {"roof": value}}, {"cameras": {"roof": {"bracket": value}}}):
        text = yaml.safe_dump(data, allow_unicode=False).encode()
        try:
            parse_config(text, "asi.yaml", Path("/"))
        except ConfigError as error:
            assert error.problems
            assert all(str(problem).isprintable() for problem in error.problems)
            # Every kind of fault has its sentence.
            assert "of another kind" not in str(error)


@settings(deadline=None)
@given(
    st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))
)
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    with pytest.raises(ConfigError):
        parse_config(text, "asi.yaml", Path("/"))


def test_variables_in_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="variables are not replaced"):
        parse_config(b"cameras: {roof: {watch: /in, output: $HOME/out}}", "x", tmp_path)


def test_an_age_without_a_unit_is_likely_one_of_days(tmp_path: Path) -> None:
    text = b"cameras: {r: {watch: /i, output: /o, retention: {exposures: {max_age: 30}}}}"
    with pytest.raises(ConfigError, match="did you mean 30d"):
        parse_config(text, "x", tmp_path)


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("/out/b", "camera b writes there too"),
        ("/in/b/exr", "lies in the folder that camera b watches"),
        ("/in/a", "'/in/a' is the watched folder itself"),
    ],
)
def test_an_output_of_a_product_must_meet_no_other_folder(output: str, says: str) -> None:
    text = f"""\
cameras:
  b: {{watch: /in/b, output: /out/b}}
  a: {{watch: /in/a, output: /out/a, products: [{{format: jpg, output: {output}}}]}}
"""
    (problem,) = problems_of(text)
    assert problem.startswith("asi.yaml:3: cameras.a.products[0].output: ")
    assert says in problem
