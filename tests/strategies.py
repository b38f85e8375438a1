"""Hypothesis strategies that several rooms share."""

from __future__ import annotations

from hypothesis import strategies as st

# Anything a model or a file system may give: all of Unicode, and undecodable bytes.
ANY_CHARACTER = st.one_of(
    st.characters(exclude_categories=("Cs",)),
    st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF),
)


ANY_TEXT = st.text(ANY_CHARACTER)
