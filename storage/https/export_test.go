package https

// Judge lets the fuzz target in on the parser of answers.
var Judge = judge
