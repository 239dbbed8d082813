"""Claims that augmentation makes false: find sentences about size, place, number or an axis.

Unlike sentences that name a direction, these sentences are embedded: training hides them only from
the samples that it scales, shifts or turns. A sentence that is found by mistake is hidden there
without need; one that is missed is wrong there. So the lists are broad.
"""

import re
import unicodedata

_LETTER = r"[^\W\d_]"
_FRAME = r"(?:image|frame|picture|photo\w*|slice|field|view|scan)"


def _words(alternatives: str) -> re.Pattern[str]:
    """Compile alternatives that must not be a part of a longer word."""
    return re.compile(rf"(?<!{_LETTER})(?:{alternatives})(?!{_LETTER})", re.VERBOSE)


# A shift changes an area, too, where the border cuts the region. A length in mm counts, because the
# scaled region looks larger or smaller than that.
_SIZE = _words(
    rf"""(?:small|large|tiny|huge|giant|minute|massive)(?:r|er|st|est)?|tini(?:er|est)
    |big(?:ger|gest)?|diminutive|minuscule|si[zs]e?able|size[ds]?|enlarg\w*|extensive\w*
    |diameters?|per[ ]?cent\w*|millimet\w*|centimet\w*|[mc]m|pixels?|px
    |covers|occup(?:y|ies|ying|ied)|fills
    |(?:half|halves|thirds?|quarters?|fifths?|tenths?|most|whole|all|much|parts?|fractions?|share
        |bulk|majority|proportion)[ ]of[ ](?:the|this|an?)[ ](?:\w+[ ])?{_FRAME}
    |(?:whole|entire)[ ]{_FRAME}"""
)
_PERCENT_SIGN = re.compile("%")
# Where the region lies in the image, whether the border cuts it, and how many regions there are,
# because the reflection at the border may show another one.
_PLACE = _words(
    rf"""cent(?:re|er)\w*|central\w*|eccentric\w*|middle|corners?|periphery
    |peripheral(?:ly)?(?![ ](?:and[ ]\w+[ ])?zone)
    |(?:borders?|edges?|margins?|rims?|boundary|boundaries|ends?|sides?)[ ]of
        [ ](?:the|this|an?)[ ]{_FRAME}
    |{_FRAME}[ ](?:borders?|edges?|margins?|boundary)
    |(?:near|at|on|to|by|along|against|beyond|reach\w*|touch\w*)[ ](?:the|an?)[ ](?:\w+[ ])?
        (?:borders?|edges?|margins?)
    |(?:outside|beyond|leav\w+)[ ](?:of[ ])?the[ ]{_FRAME}|out[ ]of[ ](?:the[ ])?{_FRAME}
    |cut[ ]off|truncated|cropped
    |(?:\d+|one|two|three|four|five|six|several|multiple|many|few|another|both|single|sole|solitary
        |isolated|separate|distinct)[ ](?:regions?|lesions?|polyps?|parts?|pieces?|areas?|spots?
        |nodules?|focus|foci)"""
)
# A polyp that spreads laterally spreads along the mucosa.
_AXIS = _words(
    r"""wider|taller|broader|higher[ ]than[ ](?:wide|broad|long)
    |(?:twice|half|times)[ ]as[ ](?:wide|tall|high|broad)[ ]as
    |widths?|heights?|tall|upright|sideways|transvers\w*|longitudinal\w*
    |(?:bi|uni|ipsi|contra)?laterali?(?:ly|s|ty)?(?![ -]?spread)|medial\w*|mesial\w*"""
)


def _plain(text: str) -> str:
    """Return the text in lower case, with single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def false_if_moved(text: str) -> bool:
    """Return whether an English text states size, place in the image or number of regions.

    Scaling or shifting the image may make it false.
    """
    plain = _plain(text)
    return bool(_SIZE.search(plain) or _PERCENT_SIGN.search(plain) or _PLACE.search(plain))


def false_if_turned(text: str) -> bool:
    """Return whether an English text names an axis, which is wrong after a quarter turn."""
    return bool(_AXIS.search(_plain(text)))
