package main

import (
	"context"
	"flag"
	"fmt"
	"runtime"
)

var versionVerb = verb{
	name:  "version",
	about: "print the version of this build",
	setup: func(*flag.FlagSet) action {
		return func(_ context.Context, c call) error {
			if err := noArgs(c); err != nil {
				return err
			}
			_, err := fmt.Fprintf(c.stdout, "lift %s (%s %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		}
	},
}
