package coordinator

//go:generate sh generate.sh
