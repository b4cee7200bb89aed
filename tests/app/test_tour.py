"""The guided tour."""

from __future__ import annotations

from tests.helpers.stand_ins import button, words


def test_the_tour_leads_through_the_pages(visit, engine):
    at = visit("heads")
    assert "Six short steps" in words(at)
    button(at, "Take the tour").click().run()
    seen = []
    for step in range(6):
        assert not at.exception and f"{step + 1} of 6" in words(at)
        seen.append(at.title[0].value)
        button(at, "Done" if step == 5 else "Next").click().run()
    assert seen == ["Heads", "Heads", "Activations", "Prune", "Prune", "Compare"]
    assert "of 6 ·" not in words(at)
    assert not any(
        item.label == "Take the tour" for item in at.switch_page("views/heads/page.py").run().button
    )
