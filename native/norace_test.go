//go:build !race

package native_test

const race = false
