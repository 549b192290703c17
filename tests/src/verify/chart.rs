//! The figures as an SVG: the queue's length and the workers' rate over time. It is read in light and in dark.

use std::fmt::Write as _;

use super::figures::Reading;

const SIZE: (f64, f64) = (900.0, 420.0);
/// The drawing's edges: left, right, top, bottom.
const EDGES: (f64, f64, f64, f64) = (70.0, 830.0, 60.0, 360.0);
/// Steps of each axis.
const STEPS: u32 = 5;
const STYLE: &str = "\
text { font: 12px system-ui, sans-serif; fill: #24292f } .title { font-size: 15px; font-weight: 600 }
.paper { fill: #ffffff } .grid { stroke: #d0d7de } .axis { stroke: #57606a }
.line { fill: none; stroke-width: 2; stroke-linejoin: round }
.queue { stroke: #bc4c00 } .rate { stroke: #0969da } text.queue { fill: #bc4c00; stroke: none } text.rate { fill: #0969da; stroke: none }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .paper { fill: #0d1117 } .grid { stroke: #30363d } .axis { stroke: #8b949e }
.queue { stroke: #ffa657 } .rate { stroke: #79c0ff } text.queue { fill: #ffa657 } text.rate { fill: #79c0ff }
}";

/// Draws it. `load_ended` is when the machines stopped, in seconds.
pub(super) fn draw(title: &str, readings: &[Reading], load_ended: f64) -> String {
    let (left, right, top, bottom) = EDGES;
    let queue = |reading: &Reading| reading.queue.map(|(waiting, under_way)| (waiting + under_way) as f64);
    let last = readings.last().map_or(1.0, |reading| reading.at);
    let (seconds, jobs) = (ceiling(last), ceiling(greatest(readings.iter().filter_map(queue))));
    let rate = ceiling(greatest(readings.iter().filter_map(|reading| reading.rate)));
    let across = |at: f64| left + (right - left) * at / seconds;
    let up = |share: f64| bottom - (bottom - top) * share;

    let (width, height) = SIZE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n<text class=\"title\" x=\"{left}\" y=\"24\">{title}</text>\n",
        title = escaped(title)
    );
    let mut put = |text: String| {
        svg.push_str(&text);
        svg.push('\n');
    };
    for step in 0..=STEPS {
        let share = f64::from(step) / f64::from(STEPS);
        let (x, y) = (across(seconds * share), up(share));
        put(format!("<line class=\"grid\" x1=\"{left}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>"));
        let text = |class: &str, x: f64, y: f64, anchor: &str, number: f64| {
            format!(
                "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
                short(number)
            )
        };
        put(text("queue", left - 8.0, y + 4.0, "end", jobs * share));
        put(text("rate", right + 8.0, y + 4.0, "start", rate * share));
        put(text("", x, bottom + 18.0, "middle", seconds * share));
    }
    put(format!("<path class=\"axis\" fill=\"none\" d=\"M{left} {top}V{bottom}H{right}V{top}\"/>"));
    put(format!("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">seconds</text>", (left + right) / 2.0, bottom + 40.0));
    put(format!("<text class=\"queue\" x=\"{left}\" y=\"46\">— queue length, jobs (left)</text>"));
    put(format!(
        "<text class=\"rate\" x=\"{right}\" y=\"46\" text-anchor=\"end\">— worker rate, jobs per second (right)</text>"
    ));
    if load_ended < last {
        let x = across(load_ended);
        put(format!(
            "<line class=\"axis\" stroke-dasharray=\"4 4\" x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>"
        ));
        put(format!("<text x=\"{:.1}\" y=\"{}\" text-anchor=\"end\">machines stop</text>", x - 6.0, top + 14.0));
    }
    let points = |value: &dyn Fn(&Reading) -> Option<f64>, most: f64| {
        let known = readings.iter().map(|reading| value(reading).map(|value| (across(reading.at), up(value / most))));
        line(known)
    };
    put(format!("<path class=\"line rate\" d=\"{}\"/>", points(&|reading| reading.rate, rate)));
    put(format!("<path class=\"line queue\" d=\"{}\"/>", points(&queue, jobs)));
    svg.push_str("</svg>\n");
    svg
}

/// A path that has a gap where nothing is known.
fn line(points: impl Iterator<Item = Option<(f64, f64)>>) -> String {
    let (mut path, mut gap) = (String::new(), true);
    for point in points {
        if let Some((x, y)) = point {
            // Writing to a text cannot fail.
            let _ = write!(path, "{}{x:.1} {y:.1}", if gap { 'M' } else { 'L' });
        }
        gap = point.is_none();
    }
    path
}

fn greatest(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.fold(0.0, f64::max)
}

/// The end of an axis: the next number whose fifths people can read.
fn ceiling(most: f64) -> f64 {
    let mut unit = 5.0;
    loop {
        for step in [1.0, 2.0, 4.0] {
            if most <= unit * step {
                return unit * step;
            }
        }
        unit *= 10.0;
    }
}

fn short(number: f64) -> String {
    if number >= 10_000.0 { format!("{}k", number / 1000.0) } else { number.to_string() }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_number_that_people_can_read() {
        for (most, end) in
            [(0.0, 5.0), (5.0, 5.0), (6.0, 10.0), (61.0, 100.0), (150.0, 200.0), (201.0, 500.0), (650.0, 1000.0)]
        {
            assert!((ceiling(most) - end).abs() < 1e-9, "{most}: {}", ceiling(most));
        }
    }

    #[test]
    fn what_nobody_answered_is_a_gap_and_what_is_drawn_lies_inside() {
        let reading = |at, queue, rate| Reading { at, queue, rate, ..Reading::default() };
        let readings = [
            reading(0.0, Some((0, 0)), None),
            reading(1.0, Some((100, 20)), Some(650.0)),
            reading(2.0, None, None),
            reading(3.0, Some((0, 0)), Some(10.0)),
        ];
        let svg = draw("a < b", &readings, 2.0);
        assert!(svg.contains("aria-label=\"a &lt; b\"") && svg.contains("prefers-color-scheme: dark"), "{svg}");
        assert!(svg.contains("d=\"M70.0 360.0L222.0 180.0M526.0 360.0\""), "{svg}");
        assert!(svg.contains("machines stop"), "{svg}");
        assert_eq!(draw("nothing", &[], 0.0).matches("<path").count(), 3);
    }
}
