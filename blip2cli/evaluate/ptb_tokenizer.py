"""Tokenizer of captions: Penn Treebank words in lower case, without punctuation.

The COCO caption evaluation reads captions with the PTBTokenizer of Stanford CoreNLP 3.4.1 and
drops the tokens of ``PUNCTUATION``. The rules here are those of it that English captions meet, and
give the same words: contractions and possessives, hyphens, numbers, dates and fractions,
abbreviations, brackets, quotes, currency, symbols, links, tags. ``docs/guides/evaluate.md`` lists
what is read otherwise, above all what hangs on the caption behind, which the original sees.

As there, the longest match wins, counted with the context it demands behind; of two that are as
long the earlier rule.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

# What the evaluation drops. Brackets are "-lrb-" here and "-LRB-" there, so these stay.
PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

_LETTERS = "A-Za-zªµºÀ-ÖØ-öø-ʯͰ-ͳͶ-ͽΆΈ-ϿЀ-ҁҊ-ԯא-תء-ي぀-ヿ一-鿿가-힣"
_L, _N = f"[{_LETTERS}]", f"[{_LETTERS}0-9]"
_APOSTROPHE, _ANY_APOSTROPHE = "['’]", "['’`‘‛]"
_SPACE = "[ \t\u00a0\u2000-\u200a\u3000]"
_WORD = f"{_L}{_N}*(?:[.!?]{_L}{_N}*)*"
_NUMBER = r"[0-9]*(?:[.:,][0-9]+)+|[0-9]+(?:[.:,][0-9]+)*"
_INITIALS = r"[A-Za-z](?:\.[A-Za-z])*"
_SLASHED = "[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_HYPHENED = rf"[A-Za-z0-9][A-Za-z0-9.,]*(?:-(?:[A-Za-z0-9]+|{_INITIALS}\.))+"
_QUOTES = "(?:'|''|[`‘’‛“”‚„«»‹›]{1,2})"
_SHORT = f"(?:[dDoOlL]{_ANY_APOSTROPHE}{_N})?{_N}+"  # "d'artagnan" begins with two letters

# Words that keep their full stop. Those of the second list do so with a capital only, as they are
# words too; those of the third before a number.
_ABBREVIATIONS = (
    "mrs? ms drs? jr sr profs? lt col gen govs? capt rev hon pres sens? reps? mt ft ste? "
    "ave blvd rd dept natl elec mfg mtg inc cos? corp ltd etc al jan feb mar apr jun jul "
    "aug sept? oct nov dec mon tues? wed thu thurs fri ala ariz calif colo conn ct dak "
    "fla ga ind kans? ky md mich minn mo mont neb nev okla penn tenn va vt wisc? wyo tel "
    "est ext sq esq bros univ assn intl sys plc rt bancorp bhd messrs maj sgt cpl pvt adm "
    "attys? lieut brig co?mdr pfc spc supts? det adj adv asst assoc ens insp mlle mme "
    "msgr sfc vs alex wm jos cie cf ph invt bldg seq"
)
_CAPITALIZED = "Miss Az Ark Del Ill La Mass Ore Pa Tex Wash"
_BEFORE_NUMBERS = "ca figs? nos? prop sect? sec arts? paras? pp op"
_FILE_TYPES = (
    "bat bmp c class cgi cpp dll doc docx exe gif gz h html? jar java jpe?g mov mp3 pdf php pl png "
    "ppt ps py sql tar txt wav x xml zip wm[va]"
)

_FRACTIONS = {"¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"}
_CURRENCY = {"£": "#", "€": "$", "¢": "cents", "¤": "$"}
_TEX = {
    "“": "``",
    "”": "''",
    "‘": "`",
    "’": "'",
    "‛": "`",
    "«": "``",
    "»": "''",
    "‹": "`",
    "›": "'",
}
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}


def _bracketed(text: str) -> str:
    """Parentheses of smileys and telephone numbers as in all other places."""
    return text.replace("(", "-lrb-").replace(")", "-rrb-")


def _unbreakable(text: str) -> str:
    """One token, though there are blanks in it."""
    return _bracketed(text).replace(" ", "\u00a0")


def _straight(text: str) -> str:
    """Apostrophes as typewriters have them."""
    return text.replace("’", "'").replace("‘", "`").replace("‛", "`")


def _right_quotes(text: str) -> str:
    """Quotes as TeX writes them, those of typewriters as closing ones."""
    return "".join(_TEX.get(character, character) for character in text)


def _left_quotes(text: str) -> str:
    """As ``_right_quotes``, those of typewriters as opening ones."""
    return _right_quotes(text.replace("'", "`"))


def _dashes(text: str) -> str:
    return "--" if len(text) in (3, 4) else text


def _any(words: str) -> str:
    return "|".join(words.split())


def _capitalized(words: str) -> str:
    """Any of the words, with a first letter of that case."""
    return "|".join(f"{word[0]}(?i:{word[1:]})" for word in words.split())


# What begins a sentence behind a single letter and a full stop.
_STARTS = _capitalized(
    "About According Additionally After An A As At But Did During Earlier He Her Here How However "
    "If In It Last Many More Mr\\. Ms\\. Now Once One Other Our She Since So Some Such That The "
    "Their Then There These They This We When While What Who Why Yet You"
)
_MAIL, _DOMAIN = r'[^ \t\n"<>|(){}\u00a0]', r'[^ \t\n"<>|(){}.\u00a0]'
_NAME = "[A-Za-z][A-Za-z0-9_:.-]*"
_TAG = (
    f"<(?:[!?][A-Za-z-][^>\n]*|{_NAME}(?: +{_NAME}(?: *= *(?:'[^'\n]*'|\"[^\"\n]*\"))?)* */?"
    f"|/{_NAME}) *>"
)
_TELEPHONE = (
    r"(?:\([0-9]{2,3}\)[ \u00a0]?|(?:\+\+?)?(?:[0-9]{2,4}[- \u00a0])?[0-9]{2,4}[- \u00a0])"
    r"[0-9]{3,4}[- \u00a0]?[0-9]{3,5}|"
    r"(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}"
)
_Normalize = Callable[[str], str]
# What the token begins with (a letter, 0 a digit, ' a quote, . all else), its pattern, what has to
# follow, how it is written.
_RULES: tuple[tuple[str, str, str, _Normalize | None], ...] = (
    # The first halves of words that are taken apart.
    ("a", "(?i:can)", "(?i:not)", None),
    ("'", "(?i:'t)", "(?i:was|is)", None),
    ("a", "(?i:gon|wan)", "(?i:na)", None),
    ("a", "(?i:got)", "(?i:ta)", None),
    ("a", "(?i:lem|gim)", "(?i:me)", None),
    (".", _TAG, "", _unbreakable),
    (".", "[–—―]", "", lambda text: "--"),
    ("a", _WORD, f"{_APOSTROPHE}(?i:[msd]|re|ve|ll)", None),
    ("a", "[A-Za-z]*[A-MO-Za-mo-z]", f"(?i:n{_ANY_APOSTROPHE}t)", None),
    ("a", _WORD, "", None),
    # Words with an apostrophe of their own.
    ("'", f"(?i:{_APOSTROPHE}n{_APOSTROPHE}?)", "", None),
    ("a", f"[lLdDjJ]{_APOSTROPHE}", "", None),
    ("a'", f"(?i:(?:dunkin|somethin|ol){_APOSTROPHE}|{_APOSTROPHE}em)", "", None),
    ("a", f"[A-HJ-XZn]{_ANY_APOSTROPHE}{_L}{_L}+", "", None),
    ("'", f"{_APOSTROPHE}[2-9]0(?i:s)", "", None),
    ("'", f"(?i:{_APOSTROPHE}till?|{_APOSTROPHE}cause)", "", None),
    ("a", f"{_L}+[aeiouyAEIOUY]{_ANY_APOSTROPHE}[aeiouA-Z]{_L}*", "", None),
    ("a", "(?i:nor'easter|c'mon|e'er|s'mores|ev'ry|li'l|nat'l|o'o|cap'n|c'est)", "", None),
    ("a", f"[yY]{_APOSTROPHE}", _L, None),
    ("a", r"(?i:https?|ftp)://[^ \t\n\"<>|(){}]+[^ \t\n\"'<>|.!?(){},-]", "", None),
    ("a0.", f"<?[a-zA-Z0-9]{_MAIL}*@(?:{_DOMAIN}+\\.)*{_DOMAIN}+>?", "", None),
    (".", f"@[a-zA-Z_][a-zA-Z_0-9]*|#{_L}+", "", None),
    ("'", f"(?i:{_APOSTROPHE}(?:[msd]|re|ve|ll))", "[^A-Za-z]", _straight),
    ("a", f"(?i:n{_ANY_APOSTROPHE}t)", "[^A-Za-z]", _straight),
    ("0", r"[0-9]{1,2}[-/][0-9]{1,2}[-/][0-9]{2,4}", "", None),
    ("0.", f"[-+]?(?:{_NUMBER})", "", None),
    ("0", r"(?:[0-9]{1,4}[- \u00a0])?[0-9]{1,4}(?:\\?/|⁄)[0-9]{1,4}", "", _unbreakable),
    (".", f"[{''.join(_FRACTIONS)}]", "", _FRACTIONS.__getitem__),
    ("a0", rf"{_SLASHED}(?:\\?/{_SLASHED}){{1,2}}", "", None),
    (".", "[⁺⁻₊₋]?(?:[⁰¹²³⁴-⁹]+|[₀-₉]+)", "", None),
    ("a", r"(?i:pro|anti)-|C\.D\.s|(?i:c\+\+|[cf]#)", "", None),
    ("a.", r"[A-Z]*\$|#", "", None),
    (".", f"[{''.join(_CURRENCY)}]", "", _CURRENCY.__getitem__),
    # Abbreviations. A single letter before a new sentence is a word of its own.
    ("a", "[A-Za-z]", rf"\.(?:{_SPACE}|\n)+(?:{_STARTS})\s", None),
    ("a", rf"(?i:{_any(_BEFORE_NUMBERS)})\.", rf"(?:{_SPACE}|\n)?[0-9]", None),
    ("a", rf"(?i:ph\.d|a\.k\.a|{_any(_ABBREVIATIONS)})\.", "", None),
    ("a", rf"(?:{_capitalized(_CAPITALIZED)})\.", "", None),
    ("a", rf"{_INITIALS}\.", "", None),
    ("'", f"{_APOSTROPHE}[0-9][0-9]", r"\s", None),
    ("a", rf"{_WORD}\.", "[,;:、]", None),
    ("a0", rf"{_N}+(?:\.{_N}+)*\.(?i:{_any(_FILE_TYPES)})", "[ \t\n.?!,\"'<]", None),
    # Telephone numbers, and what looks like them.
    ("0.", _TELEPHONE, "", _unbreakable),
    ("'", "\"|''|``", "", lambda text: "''"),
    (".", r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]]", "[^A-Za-z0-9]", _bracketed),
    (".'", r"\([-^x=~<>'][_.]?[-^x=~<>']\)|[-^x=~<>']_[-^x=~<>']", "", _bracketed),
    (".", r"[()\[\]{}]", "", _BRACKETS.__getitem__),
    (".", "-+", "", _dashes),
    (".", r"\.\.\.+|…|\.[ \u00a0](?:\.[ \u00a0])+\.", "", lambda text: "..."),
    (".", r"@+|_+|#+|\*+|(?:\\\*){1,3}", "", None),
    (".", r"[?!]+", "", None),
    # Hyphenated words.
    ("a0", _HYPHENED, "", None),
    ("a0", rf"{_HYPHENED}\.", "[,;:、]", None),
    ("a0", rf"{_SHORT}(?:[-_‐‑]{_SHORT})*\.", "[,;:、]", None),
    ("a0", f"{_SHORT}(?:[-_‐‑]{_SHORT})*", "", None),
    ("a", r"[A-Z]+(?:[+&][A-Z]+)+\.", "[,;:、]", None),
    ("a", r"[A-Z]+(?:[+&][A-Z]+)+", "", None),
    ("'", "'", f"{_L}[^ \t\n\u00a0]", _left_quotes),
    ("'", _QUOTES, "", _right_quotes),
    ("a'", f"(?i:{_APOSTROPHE}(?:[msd]|re|ve|ll)|n{_ANY_APOSTROPHE}t)", "", _straight),
    (".", "<<|>>", "", None),
    (".", r"[.,;:/=<>+%&~^|\\¦§¨©¬®¯°±²³´¶·¸¹×÷¡¿、。†-•‰′″₤¥™⅕-⅞←-⇿−∀-⋿]", "", None),
)  # fmt: skip
_PATTERNS = {
    kind: tuple(
        (re.compile(f"({token})(?:{context})" if context else f"({token})"), normalize)
        for starts, token, context, normalize in _RULES
        if kind in starts
    )
    for kind in "a0'."
}
_KINDS = (("a", re.compile(_L)), ("0", re.compile("[0-9]")), ("'", re.compile("[\"'’`‘‛“”‚„‹›«»]")))
_BLANKS = re.compile("[ \t\u00a0\u2000-\u200a\u3000]+")
_APART = frozenset(("cannot", "gonna", "gotta", "lemme", "gimme", "wanna"))
# A caption of plain words, with or without commas and a full stop: most are.
_PLAIN = re.compile("[A-Za-z]+(?:,? [A-Za-z]+)*[.!?]?[ \n]*")
_BEFORE_NUMBER = re.compile(rf"(?i:{_any(_BEFORE_NUMBERS)})\.")
_PLAIN_WORD = re.compile("([A-Za-z]+)(?=,?[ \n])")
_LOOKED_AT = 32  # characters of the caption behind
_LINE_ENDS = re.compile("[\r\n\u2028\u2029\v\f\x85]")


def tokenize(text: str, following: str = "") -> list[str]:
    """The words of a caption. ``following`` is the caption behind it, into which the original
    looks where one ends in a letter or short form with a full stop."""
    if _PLAIN.fullmatch(text) is not None:
        words = text.lower().replace(",", " ").split()
        last = words[-1]
        if last[-1] in "!?":
            words[-1] = last[:-1]
        elif last[-1] == ".":
            word = text.split()[-1]
            if _looks_on(word):
                return [each for each in all_tokens(text, following) if each not in PUNCTUATION]
            if not _keeps_stop(word):
                words[-1] = last[:-1]
        if _APART.isdisjoint(words):
            return words
    return [token for token in all_tokens(text, following) if token not in PUNCTUATION]


def all_tokens(text: str, following: str = "") -> list[str]:
    """The tokens of a caption, in lower case, punctuation among them."""
    text = _LINE_ENDS.sub(" ", text)
    end = len(text)
    text += f"\n{following[:_LOOKED_AT]}\n"  # as captions are lines
    tokens: list[str] = []
    at = 0
    while at < end:
        blanks = _BLANKS.match(text, at)
        if blanks is not None:
            at = blanks.end()
            continue
        plain = _PLAIN_WORD.match(text, at)
        if plain is not None and plain[1].lower() not in _APART:
            tokens.append(plain[1].lower())
            at = plain.end()
            continue
        longest, best, write = 0, None, None
        for pattern, normalize in _PATTERNS[_kind(text[at])]:
            found = pattern.match(text, at)
            if found is not None and found.end() - at > longest and found.end(1) > at:
                longest, best, write = found.end() - at, found, normalize
        if best is None:
            at += 1  # the original deletes what it does not know
            continue
        token = best[1] if write is None else write(best[1])
        tokens.append(token.lower())
        at = best.end(1)
    return tokens


@functools.cache
def _kind(character: str) -> str:
    """What a token that begins with ``character`` begins with, as in ``_RULES``."""
    return next((kind for kind, pattern in _KINDS if pattern.match(character)), ".")


@functools.lru_cache(1 << 12)
def _keeps_stop(word: str) -> bool:
    """Whether the last word of a caption keeps its full stop, as an abbreviation does."""
    return all_tokens(word) == [word.lower()]


@functools.lru_cache(1 << 12)
def _looks_on(word: str) -> bool:
    """Whether it depends on the caption behind if the last word keeps its full stop."""
    return len(word) == 2 or _BEFORE_NUMBER.fullmatch(word) is not None
