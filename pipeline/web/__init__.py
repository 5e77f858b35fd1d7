"""A network as a web page: its folder of static files, and a server to try it with."""
