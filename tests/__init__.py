"""The tests, a package so that no installed package named tests takes their place."""
