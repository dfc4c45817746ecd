"""What image files are: which there are in a folder, headers, decoding, pictures, packed crops."""
