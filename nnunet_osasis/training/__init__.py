"""From source images and a reference to a stylizer."""
