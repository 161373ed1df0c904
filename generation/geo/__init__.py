"""Places: coordinates, web-mercator windows, layouts and where they come from."""
