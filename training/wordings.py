"""Wordings of the questions about scenes; one that stands twice is drawn twice as often."""

from __future__ import annotations

# The picture, in the words people use for it: what ``{where}`` becomes.
WHERE = ("in the image", "in the picture", "in the photo", "here", "")

WORDINGS: dict[str, tuple[str, ...]] = {
    "count": (
        "how many {kinds} are there {where}?",
        "how many {kinds} are there {where}?",
        "how many {kinds} are {where}?",
        "how many {kinds} do you see {where}?",
        "how many {kinds} can you see {where}?",
        "how many {kinds} does the image show?",
        "how many {kinds} does the picture show?",
        "how many {kinds} does the image contain?",
        "what is the number of {kinds} {where}?",
        "count the {kinds} {where}?",
    ),
    "count_all": (
        "how many objects are there {where}?",
        "how many things are there {where}?",
        "how many objects are in the image?",
        "how many objects are in the picture?",
        "how many things are in the picture?",
        "how many objects do you see {where}?",
        "how many things can you see {where}?",
    ),
    "count_animals": (
        "how many animals are there {where}?",
        "how many animals do you see {where}?",
    ),
    "presence": (
        "is there {a} {where}?",
        "is there {a} {where}?",
        "is {a} {where}?",
        "do you see {a} {where}?",
        "can you see {a} {where}?",
        "does the image contain {a}?",
        "does the picture contain {a}?",
        "does the image show {a}?",
        "does the picture show {a}?",
        "is {a} present {where}?",
        "are there any {kinds} {where}?",
        "are there {kinds} {where}?",
    ),
    "background": (
        "what color is the background?",
        "what color is the background?",
        "what is the color of the background?",
        "what is the background color?",
        "which color is the background?",
        "what color does the background have?",
        "what colour is the background?",
        "what is the colour of the background?",
        "what color is the background of the image?",
        "what color is the background of the picture?",
    ),
    "background_check": (
        "is the background {color}?",
        "is the color of the background {color}?",
    ),
    "contents": (
        "what is in the image?",
        "what is in the picture?",
        "what is there {where}?",
        "what is here?",
        "what is this?",
        "what do you see {where}?",
        "what can you see {where}?",
        "what does the image show?",
        "what does the picture show?",
        "what does the image contain?",
        "what objects are there {where}?",
        "what objects are in the image?",
        "what objects are in the picture?",
        "which objects are there {where}?",
        "what things are there {where}?",
        "what is shown {where}?",
    ),
    "left_or_right": (
        "is the {first} to the {x} or to the {y} of the {second}?",
        "is the {first} to the {x} or {y} of the {second}?",
        "is the {first} {x} or {y} of the {second}?",
        "is the {first} on the {x} or the {y} of the {second}?",
        "is the {first} on the {x} or on the {y} of the {second}?",
        "is the {first} on the {x} or {y} of the {second}?",
        "on which side of the {second} is the {first}?",
        "which side of the {second} is the {first} on?",
        "where is the {first} relative to the {second}, {x} or {y}?",
    ),
    "side_check": (
        "is the {first} to the {side} of the {second}?",
        "is the {first} to the {side} of the {second}?",
        "is the {first} {side} of the {second}?",
        "is the {first} on the {side} of the {second}?",
        "is the {first} on the {side} side of the {second}?",
    ),
    "what_is_beside": (
        "what is to the {side} of the {second}?",
        "what is {side} of the {second}?",
        "what is on the {side} of the {second}?",
    ),
    "what_is_on_side": (
        "what is on the {side}?",
        "what is on the {side} side?",
        "which object is on the {side}?",
    ),
    "which_side": (
        "is the {kind} on the left or on the right?",
        "is the {kind} on the left or the right?",
        "is the {kind} on the left or right?",
        "is the {kind} on the left or on the right side?",
        "on which side is the {kind}?",
        "which side is the {kind} on?",
    ),
}
# Where ``{where}`` is empty these would be no sentence.
WITHOUT_WHERE = {
    "how many {kinds} are {where}?": "how many {kinds} are there?",
    "is {a} {where}?": "is there {a}?",
}
