"""The studio: a web page that draws places, offline, on this machine."""
