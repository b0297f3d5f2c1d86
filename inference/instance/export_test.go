package instance

// CountsEvery is the time between two reports that differ in their counts only.
const CountsEvery = countsEvery
