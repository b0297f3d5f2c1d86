"""Bodies of multipart/form-data."""

import email.generator
import email.mime.application
import email.mime.multipart
import json
import pickle
import random

import pytest

from answer import RequestError
from clearml_serving_worker import File, Form
from codec import decode_request

TYPE = "multipart/form-data; boundary=b"


def part(disposition, content, *head):
    lines = [f"Content-Disposition: form-data; {disposition}", *head]
    return b"--b\r\n" + "\r\n".join(lines).encode() + b"\r\n\r\n" + content + b"\r\n"


END = b"--b--\r\n"


def test_fields_are_text_and_files_have_name_type_and_bytes():
    body = (
        part('name="lang"', "gr\u00fcn".encode())
        + part('name="image"; filename="a.png"', b"\x89PNG\r\n\x00--b", "Content-Type: image/png")
        + part('name="raw"; filename="r"', b"")
        + END
    )
    form = decode_request(body, TYPE)
    assert isinstance(form, dict)
    assert set(form) == {"lang", "image", "raw"}
    assert form["lang"] == "gr\u00fcn"
    image = form["image"]
    assert (image.filename, image.content_type, image.data) == ("a.png", "image/png", b"\x89PNG\r\n\x00--b")
    assert (form["raw"].content_type, form["raw"].data) == ("application/octet-stream", b"")
    assert repr(image) == "File('a.png', 'image/png', 10 bytes)"


def test_everything_that_was_sent_under_a_name_is_there():
    body = part('name="x"', b"1") + part('name="x"', b"2") + part('name="x"; filename=f', b"3") + END
    form = decode_request(body, TYPE)
    assert form["x"].data == b"3"
    assert form.getlist("x")[:2] == ["1", "2"]
    assert form.getlist("y") == []
    again = pickle.loads(pickle.dumps(form))
    assert again["x"].data == b"3"
    assert again.getlist("x")[0] == "1"
    assert Form() == {}


@pytest.mark.parametrize(
    ("disposition", "name", "filename"),
    [
        ("name=x; filename=f.txt", "x", "f.txt"),
        ('name="a b"; filename="c;d.txt"', "a b", "c;d.txt"),
        ('name="a\\"b"; filename="c\\\\d"', 'a"b', "d"),
        ('filename="f"; name="x"', "x", "f"),
        ('NAME="x"; FileName="f"', "x", "f"),
        ('name="x" ; filename = "f" ;', "x", "f"),
        ("name=\"x\"; filename*=UTF-8''gr%C3%BCn.txt", "x", "gr\u00fcn.txt"),
        ('name="x"; filename="f"; filename*=utf-8\'\'..%2Fg', "x", "g"),
        ("name=\"x\"; filename*=utf-8''a%0D%0Ab", "x", "ab"),
        ('name="x"; filename="../../etc/passwd"', "x", "passwd"),
        ('name="x"; filename="C:\\temp\\f.txt"', "x", "f.txt"),
        ('name="x"; filename=""', "x", ""),
        ('name=""; filename="f"', "", "f"),
        ('name="\u65e5\u672c"; filename="\u65e5.txt"', "\u65e5\u672c", "\u65e5.txt"),
    ],
)
def test_names_are_read_as_clients_write_them(disposition, name, filename):
    form = decode_request(part(disposition, b"1") + END, TYPE)
    assert list(form) == [name]
    assert form[name].filename == filename


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (TYPE, b"preamble\r\n" + part('name="x"', b"1") + END),
        (TYPE, part('name="x"', b"1") + b"--b--"),
        (TYPE, part('name="x"', b"1") + b"--b--\r\nepilogue\r\n--b\r\n"),
        (TYPE, b"--b \t\r\nContent-Disposition: form-data; name=x\r\n\r\n1\r\n--b--"),
        (TYPE, b"--b\r\ncontent-disposition:form-data;name=x\r\n\r\n1\r\n--b--"),
        ('Multipart/Form-Data; charset=utf-8; Boundary="b"', part('name="x"', b"1") + END),
    ],
)
def test_harmless_variants_are_accepted(content_type, body):
    assert decode_request(body, content_type) == {"x": "1"}


def test_a_form_without_parts_is_empty_and_a_part_may_be_empty():
    assert decode_request(END, TYPE) == {}
    assert decode_request(b"--b\r\nContent-Disposition: form-data; name=x\r\n\r\n--b--", TYPE) == {"x": ""}


@pytest.mark.parametrize(
    ("content_type", "body", "reason"),
    [
        ("multipart/form-data", part('name="x"', b"1") + END, "no valid boundary"),
        ("multipart/form-data; boundary=", END, "no valid boundary"),
        ("multipart/form-data; boundary=" + "b" * 300, END, "no valid boundary"),
        ('multipart/form-data; boundary="b\u00fc"', END, "no valid boundary"),
        ("multipart/form-data; boundary=c; boundary=b", END, "given twice"),
        (TYPE, b"no boundary", "not in the body"),
        (TYPE, b"x--b--", "not in the body"),
        (TYPE, b"--b", "neither a line end nor --"),
        (TYPE, b"--bx\r\n", "neither a line end nor --"),
        (TYPE, b"--b-\r\n", "neither a line end nor --"),
        (TYPE, b"--b\r\n", "has no end"),
        (TYPE, part('name="x"', b"1"), "closing boundary is missing"),
        (TYPE, part('name="x"', b"1") + b"--b", "neither a line end"),
        (TYPE, part('name="x"', b"1")[:-2], "closing boundary is missing"),
        (TYPE, part('name="x"', b"1") + b"--b\r\nA: b", "has no end"),
        (TYPE, part('filename="x"', b"1") + END, "with a name"),
        (TYPE, part('name="x', b"1") + END, "with a name"),
        (TYPE, part("name", b"1") + END, "with a name"),
        (TYPE, part('name="x"; name="y"', b"1") + END, "given twice"),
        (TYPE, b"--b\r\n\r\n1\r\n--b--", "with a name"),
        (TYPE, b"--b\r\nContent-Disposition: attachment; name=x\r\n\r\n1\r\n--b--", "with a name"),
        (TYPE, b"--b\r\nnonsense\r\n\r\n1\r\n--b--", "no header field"),
        (TYPE, part('name="x"', b"\xff") + END, "field 'x' is not UTF-8"),
        (TYPE, part('name="a\tb\x00"', b"") + END, "control character"),
        (TYPE, part('name="x"', b"", "A: b\nContent-Type: c") + END, "control character"),
        (TYPE, part('name="x"', b"MQ==", "Content-Transfer-Encoding: base64") + END, "send the bytes as they are"),
        (TYPE, part('name="x"', b"", "A: " + "b" * (17 << 10)) + END, "too long"),
        (TYPE, part('name="x"', b"") * 1001 + END, "more than 1000 parts"),
    ],
)
def test_a_malformed_form_says_what_is_wrong(content_type, body, reason):
    with pytest.raises(RequestError) as caught:
        decode_request(body, content_type)
    assert reason in caught.value.detail[0]["ctx"]["error"]
    assert caught.value.detail[0]["type"] == "form_invalid"


def test_a_malformed_form_is_a_422(process):
    answer = process("return data").ask(b"x", TYPE)
    assert (answer.status, answer.error_kind) == (422, "request")
    assert json.loads(answer.body)["detail"][0]["loc"] == ["body", 0]


def test_user_code_gets_the_form(load):
    endpoint = load("""
        class Preprocess:
            def preprocess(self, body, state, collect_custom_statistics_fn=None):
                f = body["image"]
                return [body["lang"], f.filename, f.content_type, len(f.data)]

            def process(self, data, state, collect_custom_statistics_fn=None):
                return data
    """)
    body = (
        part('name="lang"', b"de") + part('name="image"; filename="a.png"', b"12345", "Content-Type: image/png") + END
    )
    assert endpoint.value(body, TYPE) == ["de", "a.png", "image/png", 5]


def test_what_the_standard_library_writes_is_read_back():
    message = email.mime.multipart.MIMEMultipart("form-data", boundary="=_b'()+_,-./:=?")
    for name, content in (("a", b"\x00\r\n--x"), ("b", b"")):
        each = email.mime.application.MIMEApplication(content, _encoder=lambda m: None)
        del each["MIME-Version"]
        each.add_header("Content-Disposition", "form-data", name=name, filename=name + ".bin")
        message.attach(each)
    text = message.as_bytes(policy=message.policy.clone(linesep="\r\n"))
    _, _, body = text.partition(b"\r\n\r\n")
    form = decode_request(body, message["Content-Type"])
    assert form["b"].data == b""
    assert form["a"].filename == "a.bin"


@pytest.mark.parametrize("seed", range(20))
def test_forms_come_back_as_they_were_sent(seed):
    source = random.Random(seed)
    near = [b"\r", b"\n", b"\r\n", b"-", b"--", b"--limi", b"\r\n--limi", b"\r\n--Limit", b"\x00", b"\xff", b"x" * 50]
    for _ in range(50):
        sent, body = [], b""
        for _ in range(source.randrange(6)):
            name, content = source.choice(["a", "b", "\u00e9 c"]), b"".join(source.choices(near, k=source.randrange(8)))
            head = f'Content-Disposition: form-data; name="{name}"; filename="f"\r\nContent-Type: a/b'
            sent.append((name, content))
            body += b"--limit\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"
        form = decode_request(body + b"--limit--\r\n", "multipart/form-data; boundary=limit")
        for name in ("a", "b", "\u00e9 c"):
            assert [file.data for file in form.getlist(name)] == [content for n, content in sent if n == name]


def test_any_bytes_give_a_form_or_a_request_error():
    source = random.Random(2)
    pieces = [
        *(b"--b", b"\r\n", b"--", b"\r", b"\n", b"-", b"b", b"\xff", b"\x00", b"x", b'"', b";", b"=", b"\\"),
        *(b"Content-Disposition: form-data", b'; name="x"', b'; filename="f"', b"; filename*=utf-8''%zz%", b": "),
        *(part('name="x"', b"1"), part('name="y"; filename="f"', b"2"), END, b"Content-Type: a/b\r\n", b"A:\r\n\r\n"),
    ]
    decoded = refused = 0
    for _ in range(30_000):
        body = b"".join(source.choices(pieces, k=source.randrange(1, 14)))
        if source.random() < 0.5:
            body = part('name="x"', body) + END
        content_type = source.choice(
            [TYPE, TYPE, TYPE, TYPE + '; "', "multipart/form-data;", 'multipart/form-data; boundary="']
        )
        try:
            form = decode_request(memoryview(body), content_type)
        except RequestError as error:
            json.dumps(error.detail)
            refused += 1
        else:
            for name in form:
                assert all(isinstance(value, (str, File)) for value in form.getlist(name))
            decoded += 1
    assert decoded > 3000
    assert refused > 3000


@pytest.mark.parametrize(
    "body",
    [
        b"\r\n--" * 500_000,
        b"--b\r\n" + b"\r\n--" * 500_000,
        b"--b" + b" " * 2_000_000,
        b"--b\r\n" + b"A: b\r\n" * 500_000,
        b"--b\r\nContent-Disposition: form-data" + b"; " * 8000 + b"\r\n\r\n\r\n--b--",
        b'--b\r\nContent-Disposition: form-data; name="' + b"\\" * 16000 + b"\r\n\r\n\r\n--b--",
        b"--b\r\n" * 500_000,
    ],
)
def test_hostile_forms_are_refused_at_once(body):
    with pytest.raises(RequestError):
        decode_request(body, TYPE)
