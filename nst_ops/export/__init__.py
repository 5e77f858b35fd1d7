"""Networks as files for phones, browsers and other runtimes, each compared with Keras."""
