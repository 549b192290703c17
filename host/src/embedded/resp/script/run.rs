//! Statements to what they answer, step by step, with a bound: all other clients wait meanwhile.

use bytes::Bytes;

use super::parse::parse;
use super::{Expression, Fault, Given, Operator, Statement};

/// Statements and expressions that one script may take.
const MAX_STEPS: usize = 5_000_000;

/// What a script works with.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum Value {
    Nil,
    Bool(bool),
    Number(f64),
    Text(Bytes),
    /// Texts that a command answered, to be returned as they are: Lua has them in a table.
    List(Vec<Bytes>),
    /// A status that a command answered: Lua has it in a table.
    Status(&'static str),
}

impl Value {
    /// Everything else is true, 0 and the empty text too.
    fn holds(&self) -> bool {
        !matches!(self, Self::Nil | Self::Bool(false))
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => std::str::from_utf8(text).ok()?.trim().parse().ok(),
            _ => None,
        }
    }
}

/// Carries a script out; `call` does its commands.
pub(in super::super) fn run(
    text: &[u8],
    keys: &[Bytes],
    arguments: &[Bytes],
    call: &mut dyn FnMut(Vec<Bytes>) -> Result<Value, Fault>,
) -> Result<Value, Fault> {
    let script = parse(text)?;
    let mut runner = Runner { keys, arguments, call, locals: Vec::new(), steps: 0 };
    Ok(runner.block(&script)?.unwrap_or(Value::Nil))
}

struct Runner<'a> {
    keys: &'a [Bytes],
    arguments: &'a [Bytes],
    call: &'a mut dyn FnMut(Vec<Bytes>) -> Result<Value, Fault>,
    /// The newest last: a name means the newest that has it.
    locals: Vec<(String, Value)>,
    steps: usize,
}

impl Runner<'_> {
    fn step(&mut self) -> Result<(), Fault> {
        self.steps += 1;
        if self.steps > MAX_STEPS { Err(Fault::script("it takes too many steps")) } else { Ok(()) }
    }

    /// What it returns, where it does.
    fn block(&mut self, statements: &[Statement]) -> Result<Option<Value>, Fault> {
        let outside = self.locals.len();
        for statement in statements {
            let returned = self.statement(statement)?;
            if returned.is_some() {
                return Ok(returned);
            }
        }
        self.locals.truncate(outside);
        Ok(None)
    }

    fn statement(&mut self, statement: &Statement) -> Result<Option<Value>, Fault> {
        self.step()?;
        match statement {
            Statement::Local(name, expression) => {
                let value = self.value(expression)?;
                self.locals.push((name.clone(), value));
            }
            Statement::Set(name, expression) => {
                let value = self.value(expression)?;
                match self.locals.iter_mut().rev().find(|(local, _)| local == name) {
                    Some((_, old)) => *old = value,
                    None => return Err(Fault::script(format!("`{name}` is no local; scripts have no globals"))),
                }
            }
            Statement::If(condition, then) => {
                if self.value(condition)?.holds() {
                    return self.block(then);
                }
            }
            Statement::While(condition, body) => {
                while self.value(condition)?.holds() {
                    let returned = self.block(body)?;
                    if returned.is_some() {
                        return Ok(returned);
                    }
                }
            }
            Statement::For(name, first, last, body) => {
                let (mut at, last) = (self.as_number(first)?, self.as_number(last)?);
                while at <= last {
                    self.step()?;
                    self.locals.push((name.clone(), Value::Number(at)));
                    let returned = self.block(body)?;
                    if returned.is_some() {
                        return Ok(returned);
                    }
                    self.locals.pop();
                    at += 1.0;
                }
            }
            Statement::Return(None) => return Ok(Some(Value::Nil)),
            Statement::Return(Some(expression)) => return self.value(expression).map(Some),
            Statement::Do(expression) => {
                self.value(expression)?;
            }
        }
        Ok(None)
    }

    fn value(&mut self, expression: &Expression) -> Result<Value, Fault> {
        self.step()?;
        Ok(match expression {
            Expression::Value(value) => value.clone(),
            Expression::Name(name) => match self.locals.iter().rev().find(|(local, _)| local == name) {
                Some((_, value)) => value.clone(),
                None => return Err(Fault::script(format!("`{name}` is no local; scripts have no globals"))),
            },
            Expression::Given(given, place) => {
                let (place, given) = (self.value(place)?, self.given(*given));
                let place = place.number().filter(|place| *place >= 1.0 && place.fract() == 0.0);
                let found = place.and_then(|place| given.get(place as usize - 1));
                found.map_or(Value::Nil, |text| Value::Text(text.clone()))
            }
            Expression::Length(given) => Value::Number(self.given(*given).len() as f64),
            Expression::Size(text) => match self.value(text)? {
                Value::Text(text) => Value::Number(text.len() as f64),
                other => return Err(Fault::script(format!("`#` is of a text, not of {other:?}"))),
            },
            Expression::Call(arguments) => self.command(arguments)?,
            Expression::ToNumber(inner) => self.value(inner)?.number().map_or(Value::Nil, Value::Number),
            Expression::Negative(inner) => Value::Number(-self.as_number(inner)?),
            Expression::Two(operator, sides) => self.two(*operator, &sides.0, &sides.1)?,
        })
    }

    fn given(&self, given: Given) -> &[Bytes] {
        match given {
            Given::Keys => self.keys,
            Given::Arguments => self.arguments,
        }
    }

    fn as_number(&mut self, expression: &Expression) -> Result<f64, Fault> {
        let value = self.value(expression)?;
        value.number().ok_or_else(|| Fault::script(format!("a number is needed, not {value:?}")))
    }

    fn two(&mut self, operator: Operator, left: &Expression, right: &Expression) -> Result<Value, Fault> {
        let first = self.value(left)?;
        match operator {
            Operator::Or => return if first.holds() { Ok(first) } else { self.value(right) },
            Operator::And => return if first.holds() { self.value(right) } else { Ok(first) },
            _ => {}
        }
        let second = self.value(right)?;
        Ok(match (operator, &first, &second) {
            (Operator::Equal, ..) => Value::Bool(first == second),
            (Operator::Unequal, ..) => Value::Bool(first != second),
            // Lua compares texts with texts and numbers with numbers, and adds what reads as a number.
            (Operator::Greater, Value::Number(first), Value::Number(second)) => Value::Bool(first > second),
            (Operator::Less, Value::Number(first), Value::Number(second)) => Value::Bool(first < second),
            (Operator::Plus | Operator::Minus, ..) => match (operator, first.number(), second.number()) {
                (Operator::Plus, Some(first), Some(second)) => Value::Number(first + second),
                (_, Some(first), Some(second)) => Value::Number(first - second),
                _ => return Err(Fault::script(format!("numbers are needed, not {first:?} and {second:?}"))),
            },
            _ => return Err(Fault::script(format!("{first:?} and {second:?} are not compared here"))),
        })
    }

    fn command(&mut self, arguments: &[Expression]) -> Result<Value, Fault> {
        let mut words = Vec::with_capacity(arguments.len());
        for argument in arguments {
            words.push(match self.value(argument)? {
                Value::Text(text) => text,
                Value::Number(number) if number.fract() == 0.0 && number.abs() < 9e15 => {
                    Bytes::from((number as i64).to_string())
                }
                other => return Err(Fault::script(format!("a command takes texts and whole numbers, not {other:?}"))),
            });
        }
        (self.call)(words)
    }
}
