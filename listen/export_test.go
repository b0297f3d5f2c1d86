package listen

// Holder lets tests in on the search for the process that has a port.
var Holder = holder
