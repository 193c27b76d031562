"""Chat templates from strangers: rendered as transformers does, or refused in one line, in bounded
time and memory."""

import time

import jinja2
import pytest

from malt_jax.text import chat

CHAT = [{"role": "user", "content": "hi"}]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def render(source: str, messages=CHAT, *, generate: bool = True) -> str:
    return chat.render(source, messages, SPECIAL, generate=generate)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", "<s>hi</s>"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}!", "hi!"),
        ("{% if true %}\n  {% generation %}\n  a\n  {% endgeneration %}\n{% endif %}", "  a\n"),
        ("{% if tools is not none %}T{% endif %}{% if documents is none %}D{% endif %}", "D"),
        ("{% if tools is defined and not tools %}x{% endif %}", "x"),
        ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"),
        ("{{ {'b': 'é', 'a': [1]} | tojson }}", '{"b": "é", "a": [1]}'),
        ("{{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }}", '{"a":2,"b":1}'),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{{ undefined_name }}|{{ add_generation_prompt }}", "|True"),
    ],
)
def test_literally(source, text):
    assert render(source) == text


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
GROWS = (
    "{% set n = namespace(t='a' * 1000) %}{% for i in range(60) %}"
    "{% set n.t = n.t + n.t %}{% endfor %}{{ n.t }}"
)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (LOOP, "takes more than 5 s or 1024 MiB"),
        (GROWS, "asks for too much|takes more than"),
        ("{{ 'a' * 10 ** 11 }}", "asks for too much"),
        ("{{ 'a' * 10 ** 7 }}", "makes 10,000,000 characters"),
        ("{{ '%99999999999d' % 1 }}", "asks for too much|takes more than"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "asks for too much.*[Rr]ange too big"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "asks for too much|takes more than"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{{ ''.join.__self__.upper() }}", "unsafe"),
        ("{{ cycler.__init__.__globals__.os.environ }}", "unsafe"),
        ("{{ messages.append(1) }}", "."),
        ("{% include '/etc/passwd' %}", "."),
        ("a\n{% if %}", "line 2: "),
        ("{% generation %}", "line 1: "),
        ("{% nonsense %}", "line 1: .*nonsense"),
        ("{{ raise_exception('only\n\ntwo roles') }}", "only two roles$"),
        ("{{ messages[0].content.nothing.more }}", "."),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
    ],
)
def test_what_cannot_be_rendered_is_refused_in_a_line(source, words):
    started = time.monotonic()
    with pytest.raises(ValueError, match=f"^chat template: .*({words})") as caught:
        render(source)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert time.monotonic() - started < chat.WALL_SECONDS


def test_the_process_knows_nothing_of_this_one(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "x")
    code = "{{ (lipsum | attr('__glo' ~ 'bals__')).os.environ }}"
    with pytest.raises(ValueError, match="chat template"):
        render(code)


def test_as_jinja_itself_renders_what_has_no_special_tag():
    source = "{% for m in messages %}\n  {{- m.role | upper }}: {{ m['content'] }}\n{% endfor %}\n"
    plain = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(source)
    assert render(source) == plain.render(messages=CHAT) == "USER: hi\n"
