"""The id of a video from what another tool calls its file."""

import re
import urllib.parse

from feature_extraction.store import encode_id

VIDEO_SUFFIX = re.compile(r"(?i)\.(mp4|m4v|mov|mkv|webm|avi|mpe?g|ts|mts|wmv|flv|ogv|3gp)$")


def id_of_media(name: str) -> str:
    """The id that extraction gives a file of this name: no folders, no video suffix. A URL is decoded
    first."""
    if "?d=" in name:  # Label Studio's local files
        name = name.split("?d=", 1)[1]
    if re.match(r"[a-z]+://", name):
        name = urllib.parse.unquote(urllib.parse.urlsplit(name).path)
    return encode_id(VIDEO_SUFFIX.sub("", re.split(r"[/\\]", name)[-1]))
