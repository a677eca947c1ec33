package client

// StdinWindow is for tests that overstep it.
const StdinWindow = stdinWindow
