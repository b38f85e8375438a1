"""Opening local files and URLs, writing durably, and text that every format can hold."""
