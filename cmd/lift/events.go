package main

import (
	"math"
	"time"

	"lift/coordinator/liftpb"
	"lift/launch"
)

// launchEvent is a coordinator's event as `--json` prints it; false: one that is not shown.
func launchEvent(e *liftpb.Event) (launch.Event, bool) {
	out := launch.Event{Time: time.Unix(0, e.GetUnixNanos()).UTC(), Node: e.GetNode()}
	say := func(kind, text string) {
		out.Kind, out.Notice = kind, &launch.Notice{Text: text}
	}
	switch v := e.GetEvent().(type) {
	case *liftpb.Event_Joined:
		out.Kind = launch.KindJoined
		out.Joined = &launch.Joined{Member: v.Joined.GetMember().GetName(), Devices: int(v.Joined.GetMember().GetDevices()),
			Joined: int(v.Joined.GetJoined()), Wanted: int(v.Joined.GetWanted())}
	case *liftpb.Event_Generation:
		out.Kind = launch.KindGeneration
		out.Generation = &launch.Generation{ID: v.Generation.GetId(), FirstStep: v.Generation.GetFirstStep(), Members: []string{}}
		for _, m := range v.Generation.GetMembers() {
			out.Generation.Members = append(out.Generation.Members, m.GetName())
		}
	case *liftpb.Event_Progress:
		out.Kind, out.Progress = launch.KindProgress, progressOf(v.Progress)
	case *liftpb.Event_Evaluation:
		out.Kind, out.Evaluation = launch.KindEvaluation, evaluationOf(v.Evaluation)
	case *liftpb.Event_Failure:
		say(launch.KindFailure, v.Failure.GetMessage())
	case *liftpb.Event_Left:
		say(launch.KindLeft, v.Left.GetReason())
	case *liftpb.Event_Refused:
		say(launch.KindRefused, v.Refused.GetReason())
	case *liftpb.Event_Stop:
		say(launch.KindStop, v.Stop.GetReason())
	case *liftpb.Event_Done:
		out.Kind = launch.KindDone
	case *liftpb.Event_Ended:
		out.Kind = launch.KindEnded
		out.Ended = &launch.Ended{Finished: v.Ended.GetFinished(), Failed: v.Ended.GetFailed(), Reason: v.Ended.GetReason(),
			Step: v.Ended.GetStep(), AdaptersSHA256: v.Ended.GetAdaptersSha256()}
		out.Summary = v.Ended.GetSummaryJson()
	default:
		return launch.Event{}, false
	}
	return out, true
}

func progressOf(p *liftpb.Progress) *launch.Progress {
	return &launch.Progress{Step: p.GetStep(), Steps: p.GetSteps(), Epoch: int(p.GetEpoch()), Epochs: int(p.GetEpochs()),
		Loss: finite(p.GetLoss()), LearningRate: finite(p.GetLearningRate()), Images: p.GetImages(),
		ImagesPerSecond: finite(p.GetImagesPerSecond()), SecondsLeft: finite(p.GetSecondsLeft()),
		Phase: p.GetPhase(), PhaseDone: finite(p.GetPhaseDone())}
}

func evaluationOf(e *liftpb.Evaluation) *launch.Evaluation {
	return &launch.Evaluation{Step: e.GetStep(), Epoch: int(e.GetEpoch()), Split: e.GetSplit(), All: finite(e.GetAll()),
		Many: e.Many, Medium: e.Medium, Few: e.Few, Final: e.GetFinal()}
}

// finite is x, or 0 for what JSON cannot say.
func finite(x float64) float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return 0
	}
	return x
}
