package https

// Judge exports the check of answers to the fuzz target.
var Judge = judge
