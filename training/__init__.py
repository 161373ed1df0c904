"""All that learning and measuring needs; it imports ``generation``, never the other way round."""
