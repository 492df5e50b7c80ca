//! Medians and quartiles.

/// Quartiles of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quartiles {
    /// A quarter of the sample lies below.
    pub low: f64,
    /// Half of it.
    pub median: f64,
    /// Three quarters.
    pub high: f64,
    /// How many values there were.
    pub count: usize,
}

impl Quartiles {
    /// `None` for an empty sample.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let position = share * (values.len() - 1) as f64;
            let (below, above) = (values[position.floor() as usize], values[position.ceil() as usize]);
            below + (above - below) * position.fract()
        };
        (!values.is_empty()).then(|| Quartiles {
            low: at(0.25),
            median: at(0.5),
            high: at(0.75),
            count: values.len(),
        })
    }

    /// Half the width of the median's 95 % interval, as a share of the median (after McGill, Tukey and Larsen).
    pub fn uncertainty(&self) -> f64 {
        1.57 * (self.high - self.low) / (self.count as f64).sqrt() / self.median
    }
}

/// The median; `NaN` for an empty sample.
pub fn median(values: Vec<f64>) -> f64 {
    Quartiles::of(values).map_or(f64::NAN, |quartiles| quartiles.median)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_interpolate() {
        let quartiles = Quartiles::of(vec![4.0, 1.0, 3.0, 2.0, 5.0]).unwrap();
        assert_eq!((quartiles.low, quartiles.median, quartiles.high), (2.0, 3.0, 4.0));
        assert_eq!(median(vec![1.0, 2.0]), 1.5);
        assert!(Quartiles::of(vec![]).is_none());
    }
}
