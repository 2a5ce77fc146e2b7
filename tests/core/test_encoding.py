"""Bytes: what strict JSON is refused, and that canonical bytes are RFC 8785's."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given, settings
from hypothesis import strategies as st

from factledger.core import encoding
from factledger.core.encoding import MAX_DEPTH, MAX_INTEGER, canonical_bytes, parse_json
from factledger.core.errors import Category, LedgerError

# ---- Values of every kind ------------------------------------------------------------------------------

AWKWARD = [
    "",
    "\u20ac",
    "\u00e9",
    "e\u0301",
    "\U0001f600",
    "\ufb33",
    "\ue000",
    "\U00010000",
    "\u2028",
    "\x7f",
    "\\",
    '"',
    "/",
]
texts = st.one_of(st.sampled_from(AWKWARD), st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
integers = st.one_of(st.integers(-MAX_INTEGER, MAX_INTEGER), st.sampled_from([0, MAX_INTEGER, -MAX_INTEGER]))
# Where JavaScript changes from one way of writing a number to another.
EDGES = [0.0, -0.0, 1e-7, 9.999999e-7, 1e-6, 1e-3, 0.1 + 0.2, 1e9, 1e16, 1e20, 1e21, 1.5e300, 5e-324, 2.0**53, 1.0, 4.5]
all_decimals = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([sign * edge for edge in EDGES for sign in (1, -1)]),
    st.builds(math.ldexp, st.sampled_from([1.0, 1.25, 1 + 2**-52]), st.integers(-60, 80)),
)
# Of whole numbers up to 1e21 the canonical form has no point: from 2^53 on they are integers that are refused.
decimals = all_decimals.filter(lambda number: not MAX_INTEGER < abs(number) < 1e21)
scalars = st.one_of(st.none(), st.booleans(), integers, decimals, texts)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(texts, inner, max_size=5)),
    max_leaves=25,
)


def refusal(body: bytes) -> LedgerError:
    with pytest.raises(LedgerError) as refused:
        parse_json(body)
    assert refused.value.category is Category.MALFORMED
    assert refused.value.code == "malformed-json"
    (fault,) = refused.value.errors
    assert fault.detail in refused.value.detail
    return refused.value


# ---- Canonical bytes -----------------------------------------------------------------------------------


@settings(max_examples=500)
@given(values)
@example({"\ufb33": 1, "\U0001f600": 2, "a": 3})  # UTF-16 order: a surrogate pair sorts before U+FB33
def test_canonical_bytes_are_those_of_rfc_8785(value: Any) -> None:
    assert canonical_bytes(value) == rfc8785.dumps(value)


@settings(max_examples=200)
@given(all_decimals)
def test_canonical_bytes_of_any_decimal_are_those_of_rfc_8785(number: float) -> None:
    for value in (number, [number, -number], {"a": {"b": number}}):
        assert canonical_bytes(value) == rfc8785.dumps(value)


@given(st.builds(math.ldexp, st.sampled_from([1.0, -1.25]), st.integers(50, 80)))
@example(1e16)
def test_a_number_that_is_taken_can_be_given_again_as_it_is_kept(number: float) -> None:
    """A decimal whose canonical form is an integer beyond 2^53 is refused like that integer."""
    try:
        taken = parse_json(repr(number).encode())
    except LedgerError as refusal:
        assert refusal.code == "malformed-json"
        assert 2**53 <= abs(number) < 1e21
        return
    kept = canonical_bytes(taken)
    assert canonical_bytes(parse_json(kept)) == kept


@settings(max_examples=200)
@given(values)
def test_canonical_bytes_can_be_read_back_and_are_their_own_canonical_form(value: Any) -> None:
    written = canonical_bytes(value)
    read = parse_json(written)
    assert canonical_bytes(read) == written
    assert read == value
    assert json.loads(written) == value


@settings(max_examples=150)
@given(values, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_layout_and_escapes_do_not_matter(value: Any, indent: Any, ascii_only: bool) -> None:
    body = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    assert canonical_bytes(parse_json(body)) == canonical_bytes(value)


@pytest.mark.parametrize(
    ("body", "canonical"),
    [
        ('{"b": 1, "a": 2, "aa": 3, "": 4, "A": 5}', '{"":4,"A":5,"a":2,"aa":3,"b":1}'),
        ("[56, 1.0, -0, -0.0, 0e9, 100e-2, 4.50]", "[56,1,0,0,0,1,4.5]"),
        ("[1e21, 1e15, 1E+2, 0.000001, 0.0000001, 1e-7]", "[1e+21,1000000000000000,100,0.000001,1e-7,1e-7]"),
        ("[333333333.33333329, 1e23, 2e-3, 9007199254740991]", "[333333333.3333333,1e+23,0.002,9007199254740991]"),
        (
            r'["\u0041\/\u00e9\u2028", "\b\f\n\r\t\"\\\u001f\u007f"]',
            '["A/é\u2028","\\b\\f\\n\\r\\t\\"\\\\\\u001f\x7f"]',
        ),
        (r'["\ud83d\ude00", "e\u0301"]', '["😀","e\u0301"]'),
        (" [ ] \n\t\r", "[]"),
        ("  null", "null"),
        ('{"1": {"f": {"f": "hi", "F": 5}, "\\n": 56.0}}', '{"1":{"\\n":56,"f":{"F":5,"f":"hi"}}}'),
    ],
)
def test_canonical_forms(body: str, canonical: str) -> None:
    assert canonical_bytes(parse_json(body.encode())).decode() == canonical


def test_content_is_committed_to_under_its_salt() -> None:
    salt, data = bytes(range(32)), b'{"a":1}'
    assert encoding.data_sha256(salt, data) == hashlib.sha256(salt + data).hexdigest()
    assert encoding.data_sha256(salt[:31] + b"\0", data) != encoding.data_sha256(salt, data)


# ---- Strict parsing ------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(values)
def test_what_json_can_say_is_read(value: Any) -> None:
    read = parse_json(json.dumps(value).encode())
    assert read == value
    assert repr(read) == repr(json.loads(json.dumps(value)))  # 1 and 1.0 and True are told apart


def placed(fragment: str) -> Iterator[bytes]:
    """A bad fragment wherever a value may stand."""
    for template in ("{}", "[{}]", '{{"a":{}}}', '[1,{{"a":[{}]}}]', '{{"a":{},"b":2}}'):
        yield template.format(fragment).encode()


@pytest.mark.parametrize(
    "fragment", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e309", "9" * 400 + ".0", "1" + "0" * 400 + "e0"]
)
def test_numbers_that_no_double_holds_are_refused(fragment: str) -> None:
    for body in placed(fragment):
        refusal(body)


@given(st.one_of(st.integers(min_value=MAX_INTEGER + 1), st.integers(max_value=-MAX_INTEGER - 1)))
@example(2**53)
@example(-(2**53))
@example(10**16)
@example(10**5000)
def test_integers_beyond_53_bits_are_refused(number: int) -> None:
    digits = f"{'-' if number < 0 else ''}1{'0' * 5000}" if abs(number) >= 10**4000 else str(number)
    for body in placed(digits):
        assert "2^53" in refusal(body).detail


@pytest.mark.parametrize("number", [MAX_INTEGER, -MAX_INTEGER, 0, -0, 10**15])
def test_integers_of_53_bits_are_kept(number: int) -> None:
    assert parse_json(f"[{number}]".encode()) == [number]


@given(st.data())
def test_a_key_given_twice_is_refused_wherever_it_stands(data: st.DataObject) -> None:
    members = data.draw(st.dictionaries(texts, scalars, min_size=1, max_size=4))
    twice = data.draw(st.sampled_from(sorted(members)))
    escaped = "".join(f"\\u{unit:04x}" for unit in _utf16(twice))  # the same key written in another way
    pairs = [f"{json.dumps(key)}:{json.dumps(value)}" for key, value in members.items()]
    pairs.insert(data.draw(st.integers(0, len(pairs))), f'"{escaped}":1')
    for body in placed("{" + ",".join(pairs) + "}"):
        assert "same key twice" in refusal(body).detail


def _utf16(text: str) -> Iterator[int]:
    raw = text.encode("utf-16-be")
    return (int.from_bytes(raw[i : i + 2], "big") for i in range(0, len(raw), 2))


@given(st.integers(0xD800, 0xDFFF), texts, texts, st.booleans())
def test_a_lone_surrogate_is_refused_in_values_and_keys(unit: int, before: str, after: str, upper: bool) -> None:
    written = f"{unit:04X}" if upper else f"{unit:04x}"
    lone = f"{json.dumps(before)[:-1]}\\u{written}{json.dumps(after)[1:]}"
    for fragment in (lone, f"{{{lone}:1}}"):
        for body in placed(fragment):
            assert "surrogate" in refusal(body).detail


@pytest.mark.parametrize("pair", [r'"\ud83d\ude00"', r'"\uD83D\uDE00"'])
def test_a_surrogate_pair_is_one_character(pair: str) -> None:
    assert parse_json(pair.encode()) == "😀"


@pytest.mark.parametrize("lone", [r'"\ude00\ud83d"', r'"\ud83d\u0041"', r'"\ud83d"', r'"\ud83d\\ude00"'])
def test_halves_that_make_no_pair_are_refused(lone: str) -> None:
    assert "surrogate" in refusal(lone.encode()).detail


@given(texts, texts)
def test_a_nul_is_refused_in_values_and_keys(before: str, after: str) -> None:
    nul = f"{json.dumps(before)[:-1]}\\u0000{json.dumps(after)[1:]}"
    for fragment in (nul, f"{{{nul}:1}}"):
        for body in placed(fragment):
            assert "NUL" in refusal(body).detail


def test_what_only_looks_like_an_escape_is_kept() -> None:
    assert parse_json(rb'["\\u0000","\\ud800"]') == ["\\u0000", "\\ud800"]


@given(values)
def test_a_byte_order_mark_is_refused(value: Any) -> None:
    assert "byte order mark" in refusal(b"\xef\xbb\xbf" + json.dumps(value).encode()).detail


@given(
    st.binary(max_size=20), st.sampled_from([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"])
)
def test_bytes_that_are_not_utf_8_are_refused(before: bytes, bad: bytes) -> None:
    refusal(b'"' + base64.b16encode(before) + bad + b'"')


@pytest.mark.parametrize(
    "encoded", ['{"a":1}'.encode("utf-16"), '{"a":1}'.encode("utf-16-le"), '"é"'.encode("latin-1")]
)
def test_other_encodings_are_refused(encoded: bytes) -> None:
    refusal(encoded)


def nested(depth: int, opening: str, closing: str, core: str) -> bytes:
    return (opening * depth + core + closing * depth).encode()


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
@pytest.mark.parametrize("core", ["1", '"x"', "[]", '"\\u0041"'])
def test_depth_is_counted_in_levels(opening: str, closing: str, core: str) -> None:
    levels = 2 if opening.startswith("[{") else 1
    room = MAX_DEPTH - (core == "[]")
    fits = room // levels
    parse_json(nested(fits, opening, closing, core))
    refused = refusal(nested(fits + 1, opening, closing, core))
    assert "deeper than 32 levels" in refused.detail


def test_depth_beyond_all_bounds_is_refused() -> None:
    assert "deeper than 32 levels" in refusal(b"[" * 100_000).detail
    assert "deeper than 32 levels" in refusal(b"[" * 100_000 + b"]" * 100_000).detail


def test_width_is_not_depth() -> None:
    wide: list[list[list[int]]] = [[[]] for _ in range(1000)]
    assert parse_json(json.dumps(wide).encode()) == wide


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (r'{"a":[0,{"b~/c":"\ud800"}]}', "/a/1/b~0~1c"),
        (r'["ok",["\u0000"]]', "/1/0"),
        (r'"\u0000"', ""),
        (r'{"a":{"\u0000":1}}', "/a"),
        (r'{"' + "k" * 100 + r'":"\u0000"}', "/" + "k" * 64),
        ('{"a":' * 33 + "1" + "}" * 33, "/a" * 32),
    ],
)
def test_a_refusal_points_at_the_place(body: str, pointer: str) -> None:
    assert refusal(body.encode()).errors[0].pointer == pointer


@pytest.mark.parametrize(
    "body",
    [
        *("", " ", "{", "}", "[1,]", '{"a":1,}', "{a:1}", "{'a':1}", "[1 2]", "01", "+1", ".5", "1.", "1e", "--1"),
        *("nul", "True", "undefined", '"', '"\n"', '"\t"', '"\x00"', r'"\x41"', r'"\u00g0"', r'"\u00"', "1 1", "[]]"),
        *(
            '{"a" 1}',
            '{"a":}',
            "// comment\n1",
            "[1,,2]",
            "0x10",
            "1_000",
            "\u00a01",
            "\ufeff1",
            "١",
            "[١]",
            "-",
            "١e1",
        ),
    ],
)
def test_what_is_not_json_is_refused(body: str) -> None:
    refusal(body.encode())


@settings(max_examples=150)
@given(
    st.one_of(st.binary(max_size=30), st.text('[]{}":,0123456789.eE+-\\utrnflsa \n\x00é', max_size=30).map(str.encode))
)
def test_any_bytes_are_read_or_refused_and_nothing_else(body: bytes) -> None:
    try:
        value = parse_json(body)
    except LedgerError as refused:
        assert refused.code == "malformed-json"
    else:
        assert json.loads(body) == value
        assert parse_json(canonical_bytes(value)) == value


@st.composite
def writings(draw: st.DrawFn) -> bytes:
    """JSON texts in which keys repeat, and strings and numbers are written in odd ways."""
    strings = st.sampled_from(
        ['"a"', '"b"', r'"\u0061"', r'"\""', r'"\u0022"', r'"\\"', r'"\\\""', '"é"', r'"\u0000"', r'"\\u0000"', '"1e5"']
    )
    numbers = st.sampled_from(["0", "-0", "1.0", "1e5", "1E-7", "1e400", "9007199254740993", "12345678.12345678"])
    spaces = st.sampled_from(["", "", " ", "\n"])

    def put(depth: int) -> str:
        kind = draw(st.sampled_from(["string", "number", "word", "list", "object"][: 5 if depth else 3]))
        if kind == "string":
            return draw(strings)
        if kind == "number":
            return draw(numbers)
        if kind == "word":
            return draw(st.sampled_from(["true", "false", "null"]))
        count = draw(st.integers(0, 3))
        if kind == "list":
            return f"[{','.join(draw(spaces) + put(depth - 1) for _ in range(count))}]"
        members = (f"{draw(strings)}{draw(spaces)}:{draw(spaces)}{put(depth - 1)}" for _ in range(count))
        return f"{{{','.join(members)}}}"

    return put(draw(st.integers(0, 3))).encode()


@settings(max_examples=500)
@given(writings())
@example(rb'{"a":"\u0022\u0022","a":1}')
@example(rb'{"a":1,"\u0061":2}')
@example(b"[" * 32 + b"]" * 32)
@example(b"[" * 300 + b"]" * 300)
def test_the_quick_way_of_reading_reads_and_refuses_as_the_careful_one_does(body: bytes) -> None:
    def told(read: Callable[[bytes], Any]) -> str:
        try:
            return repr(read(body))
        except LedgerError as refused:
            return f"{refused} {refused.errors}"

    assert told(parse_json) == told(encoding._parse_carefully)


@given(texts.filter(lambda secret: len(secret) > 3))
def test_a_refusal_never_repeats_what_was_refused(secret: str) -> None:
    written = json.dumps(secret, ensure_ascii=False)
    for body in (f'{{"a":{written},"a":{written}}}', f"[{written},NaN]", f"[{written}"):
        refused = refusal(body.encode())
        assert secret not in refused.detail or secret in refusal(b"[NaN").detail
