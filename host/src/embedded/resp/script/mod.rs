//! Scripts: the part of Lua that back ends need for the steps that must be one. Whatever is not of that part is refused by name before
//! anything is done. It knows no commands: those are given to it.
//!
//! - `parse`: text to statements.
//! - `run`: statements to what they answer.

mod parse;
mod run;

pub(super) use run::{Value, run};

/// Why a script is not carried out, or not to its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its text, or what it does with its values.
    Script(String),
    /// A command in it was refused; with the refusal's code.
    Command(String),
}

impl Fault {
    fn script(text: impl Into<String>) -> Self {
        Self::Script(text.into())
    }
}

/// What a script is made of.
#[derive(Debug)]
enum Statement {
    Local(String, Expression),
    Set(String, Expression),
    If(Expression, Vec<Statement>),
    While(Expression, Vec<Statement>),
    For(String, Expression, Expression, Vec<Statement>),
    Return(Option<Expression>),
    Do(Expression),
}

#[derive(Debug)]
enum Expression {
    Value(Value),
    Name(String),
    /// `KEYS[…]` or `ARGV[…]`.
    Given(Given, Box<Expression>),
    /// `#KEYS` or `#ARGV`.
    Length(Given),
    /// `#NAME`: bytes of a text.
    Size(Box<Expression>),
    Call(Vec<Expression>),
    ToNumber(Box<Expression>),
    Negative(Box<Expression>),
    Two(Operator, Box<(Expression, Expression)>),
}

#[derive(Debug, Clone, Copy)]
enum Given {
    Keys,
    Arguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Or,
    And,
    Equal,
    Unequal,
    Greater,
    Less,
    Plus,
    Minus,
}
