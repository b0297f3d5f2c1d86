package instance

// CountsEvery is the time between two reports that differ only in their counts.
const CountsEvery = countsEvery
