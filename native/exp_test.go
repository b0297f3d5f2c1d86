package native

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"testing"
)

// values computes exp, pow(2, x) and expf with the C library of a Python, for many arguments.
const values = `
import ctypes, random, struct, sys
libm = ctypes.CDLL("libm.so.6")
for name, kind, count in (("exp", ctypes.c_double, 1), ("pow", ctypes.c_double, 2), ("expf", ctypes.c_float, 1)):
    function = getattr(libm, name)
    function.restype, function.argtypes = kind, [kind] * count
exp, power, expf = libm.exp, libm.pow, libm.expf
r = random.Random(7)
for i in range(int(sys.argv[1])):
    if i % 4 == 0:
        x = r.uniform(-1, 1)
    elif i % 4 == 1:
        x = r.uniform(-40, 40)
    elif i % 4 == 2:
        x = r.uniform(-1090, 1030)
    else:
        x = r.gauss(0, 1) * 10 ** r.uniform(-18, 2)
    if i < 8:
        x = (0.0, -0.0, float("inf"), float("-inf"), float("nan"), 5e-324, 1e300, -1e300)[i]
    f = struct.unpack("<f", struct.pack("<f", max(-1e30, min(x / 9 if i % 4 == 2 else x, 1e30))))[0]
    sys.stdout.buffer.write(struct.pack("<dddff", x, exp(x), power(2.0, x), f, expf(f)))
`

// TestExponentialsAreThoseOfTheCLibrary compares with the C library of this machine, with and without fused
// multiply-add.
func TestExponentialsAreThoseOfTheCLibrary(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skip("the GNU C library for amd64 is compared")
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3")
	}
	for _, c := range []struct {
		name      string
		tunables  string
		exp, exp2 func(float64) float64
	}{
		{"as is", "", nil, nil},
		{"without FMA", "glibc.cpu.hwcaps=-FMA,-FMA4,-AVX2,-FMA_Usable,-FMA4_Usable,-AVX2_Usable", expPlain, exp2Plain},
	} {
		t.Run(c.name, func(t *testing.T) {
			command := exec.CommandContext(t.Context(), python, "-c", values, "200000")
			command.Env = append(os.Environ(), "GLIBC_TUNABLES="+c.tunables)
			out, err := command.Output()
			if err != nil || len(out) != 200000*32 {
				t.Skipf("the C library cannot be asked: %v", err)
			}
			fused, plain, single := 0, 0, 0
			for len(out) > 0 {
				at := func(i int) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(out[8*i:])) }
				at32 := func(i int) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(out[24+4*i:])) }
				x := at(0)
				if other(expFused(x), at(1)) || other(exp2Fused(x), at(2)) {
					fused++
				}
				if other(expPlain(x), at(1)) || other(exp2Plain(x), at(2)) {
					plain++
				}
				if y := expf(at32(0)); other(float64(y), float64(at32(1))) {
					single++
				}
				out = out[32:]
			}
			if single > 0 || min(fused, plain) > 0 || (c.tunables != "" && plain > 0) {
				t.Errorf("of 200000 arguments, fused %d, plain %d, expf %d differ from the C library", fused, plain, single)
			}
		})
	}
}

func other(x, y float64) bool {
	return math.Float64bits(x) != math.Float64bits(y) && (x == x || y == y)
}

// TestTheTableOfPowersIsThePublishedOne checks the beginning of the table that is computed here.
func TestTheTableOfPowersIsThePublishedOne(t *testing.T) {
	var got bytes.Buffer
	for _, bits := range expTable[:6] {
		fmt.Fprintf(&got, "%x ", bits)
	}
	if want := "0 3ff0000000000000 3c9b3b4f1a88bf6e 3feff63da9fb3335 bc7160139cd8dc5d 3fefec9a3e778061 "; got.String() != want {
		t.Errorf("the table begins with %s, not %s", &got, want)
	}
}
