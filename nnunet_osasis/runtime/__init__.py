"""Files that are whole, processes, devices and locks. Nothing here knows what an image is."""
