from edge_runtime.judging.decide import ScoredFace, decide
from edge_runtime.judging.tracking import Tracker
from edge_runtime.model.contract import Calibration, Verdict

BOX = (0.0, 0.0, 100.0, 100.0)


def test_one_frame_may_contradict_its_track():
    tracker, verdicts = Tracker(), []
    for number, logit in enumerate((4.0, 4.0, 4.0, 4.0, -4.0, 0.1, None)):
        (track,) = tracker.update([BOX], 0.1 * number)
        if logit is not None:
            tracker.judge(track, logit)
        face = decide(ScoredFace(BOX, 0.9, logit, None), Calibration(low=0.3, high=0.7), track=track)
        verdicts.append((face.verdict, face.frame_verdict))
    own = (*[Verdict.FAKE] * 4, Verdict.REAL, Verdict.UNCERTAIN, None)
    assert verdicts == [(Verdict.FAKE, verdict) for verdict in own]
