"""One module for each published set: files in, dialogues and problems out. `reading.SOURCES` lists them."""
