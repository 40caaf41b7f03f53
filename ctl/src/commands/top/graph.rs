//! Small graphs: a number of values as signs of rising height.
//!
//! A value that is not known is a gap, the lowest one a line at the ground, so that silence and
//! ignorance look different.

/// With which signs a graph is drawn
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Glyphs {
    /// Those that every terminal has
    Ascii,
    /// Blocks of eight heights
    Blocks,
}

/// From which value to which a graph reaches
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Glyphs {
    /// Signs of one line, from the lowest to the highest
    fn signs(self) -> &'static [char] {
        match self {
            Self::Ascii => &['_', '.', ':', '-', '=', '+', '*', '#'],
            Self::Blocks => &['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
        }
    }
}

impl Scale {
    /// From nothing to the largest value, or to `least` where all are smaller
    pub(super) fn from_zero(values: &[Option<f64>], least: f64) -> Self {
        let high = values.iter().flatten().copied().fold(least, f64::max);
        Self { low: 0.0, high }
    }

    /// Around the values; those that differ by less than `least` look the same
    pub(super) fn around(values: &[Option<f64>], least: f64) -> Self {
        let low = values.iter().flatten().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().flatten().copied().fold(0.0, f64::max);
        if low.is_finite() {
            Self { low, high: high.max(low + least) }
        } else {
            Self { low: 0.0, high: least }
        }
    }
}

/// Draws values side by side in so many lines, the highest line first
pub(super) fn graph(
    values: &[Option<f64>],
    scale: Scale,
    lines: usize,
    glyphs: Glyphs,
) -> Vec<String> {
    let signs = glyphs.signs();
    let steps = (lines * signs.len()).saturating_sub(1);
    let height = |value: f64| {
        let share = ((value - scale.low) / (scale.high - scale.low)).clamp(0.0, 1.0);
        // NaN, where the scale has no extent, becomes the ground
        (share * steps as f64).round() as usize
    };
    let sign = |value: &Option<f64>, line: usize| {
        let ground = (lines - 1 - line) * signs.len();
        match value.map(height) {
            None => ' ',
            Some(height) if height >= ground => signs[(height - ground).min(signs.len() - 1)],
            Some(_) => ' ',
        }
    };
    (0..lines).map(|line| values.iter().map(|value| sign(value, line)).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: Scale = Scale { low: 0.0, high: 7.0 };

    #[test]
    fn heights_rise_with_values_and_gaps_stay_empty() {
        let values: Vec<_> = (0..8).map(|value| Some(f64::from(value))).chain([None]).collect();

        assert_eq!(graph(&values, UNIT, 1, Glyphs::Blocks), ["▁▂▃▄▅▆▇█ "]);
        assert_eq!(graph(&values, UNIT, 1, Glyphs::Ascii), ["_.:-=+*# "]);
    }

    #[test]
    fn lines_stand_on_each_other() {
        let scale = Scale { low: 0.0, high: 15.0 };

        let lines = graph(&[Some(0.0), Some(7.0), Some(8.0), Some(15.0)], scale, 2, Glyphs::Blocks);

        assert_eq!(lines, ["  ▁█", "▁███"]);
    }

    #[test]
    fn what_is_out_of_scale_or_no_number_is_cut() {
        let odd = [Some(-1.0), Some(99.0), Some(f64::NAN)];

        assert_eq!(graph(&odd, UNIT, 1, Glyphs::Blocks), ["▁█▁"]);
        assert_eq!(graph(&[Some(3.0)], Scale { low: 3.0, high: 3.0 }, 1, Glyphs::Blocks), ["▁"]);
    }

    #[test]
    fn scale_fits_the_values() {
        let values = [Some(200.0), None, Some(203.0)];

        assert_eq!(Scale::from_zero(&values, 1.0), Scale { low: 0.0, high: 203.0 });
        assert_eq!(Scale::around(&values, 20.0), Scale { low: 200.0, high: 220.0 });
        assert_eq!(Scale::around(&[None], 20.0), Scale { low: 0.0, high: 20.0 });
    }
}
