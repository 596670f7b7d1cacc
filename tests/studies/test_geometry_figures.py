"""What the drawings of the variants show is what their formulas say."""

import numpy as np
import pytest

from studies.geometry_figures import step_without_harm, turned_weight

WEIGHT, MEAN = np.array([1.0, 0.0]), np.deg2rad(70.0)


@pytest.mark.parametrize("gamma", [0.0, 0.6, 1.0])
def test_the_step_keeps_a_share_of_what_leads_away(gamma):
    step = step_without_harm(WEIGHT, np.array([-0.35, 0.7]), gamma)
    np.testing.assert_allclose(step, [0.35, -0.7 * gamma], atol=1e-6)  # the mean lies upwards


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_weight_turns_by_a_share_of_its_angle(alpha):
    angle = alpha * MEAN
    expected = [np.cos(angle), np.sin(angle)]
    np.testing.assert_allclose(turned_weight(WEIGHT, alpha), expected, atol=1e-6)
