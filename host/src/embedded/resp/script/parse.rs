//! Text to statements. What it does not know it names.

use bytes::Bytes;

use super::{Expression, Fault, Given, Operator, Statement, Value};

/// How deep blocks and expressions may lie in each other.
const DEPTH: usize = 50;
/// What is taken for a word where a name is expected.
const RESERVED: [&str; 21] = [
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if", "in", "local", "nil", "not", "or",
    "repeat", "return", "then", "true", "until", "while",
];

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Number(f64),
    Text(Bytes),
    Sign(&'static str),
}

/// The longer ones first.
const SIGNS: [&str; 18] =
    ["==", "~=", "..", "<=", ">=", "=", ">", "<", "+", "-", "*", "/", "#", "(", ")", "[", "]", ","];

pub(super) fn parse(text: &[u8]) -> Result<Vec<Statement>, Fault> {
    let text = std::str::from_utf8(text).map_err(|_| Fault::script("it is not UTF-8"))?;
    let mut tokens = tokens(text)?;
    tokens.reverse();
    let mut parser = Parser { tokens, depth: 0 };
    let block = parser.block()?;
    match parser.tokens.pop() {
        None => Ok(block),
        Some(token) => Err(unknown(&token)),
    }
}

fn tokens(mut rest: &str) -> Result<Vec<Token>, Fault> {
    let mut tokens = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n', ';']);
        let Some(first) = rest.chars().next() else { return Ok(tokens) };
        let length = if rest.starts_with("--") {
            rest.find('\n').unwrap_or(rest.len())
        } else if first.is_ascii_alphabetic() || first == '_' {
            // `redis.call` is one word here: there are no tables.
            let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
            let end = rest.find(|c| !part(c)).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            end
        } else if first.is_ascii_digit() {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len());
            let number = rest[..end].parse::<u32>();
            let number = number.map_err(|_| Fault::script(format!("`{}` is no small whole number", &rest[..end])))?;
            tokens.push(Token::Number(f64::from(number)));
            end
        } else if matches!(first, '\'' | '"') {
            let end = rest[1..].find(first).ok_or_else(|| Fault::script("a text without an end"))? + 2;
            let text = &rest[1..end - 1];
            if text.contains(['\\', '\n']) {
                return Err(Fault::script("texts with `\\` or line breaks are not known here"));
            }
            tokens.push(Token::Text(Bytes::copy_from_slice(text.as_bytes())));
            end
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            tokens.push(Token::Sign(sign));
            sign.len()
        } else {
            return Err(Fault::script(format!("`{first}` is not known here")));
        };
        rest = &rest[length..];
    }
}

fn unknown(token: &Token) -> Fault {
    let shown = match token {
        Token::Word(word) => word.clone(),
        Token::Number(number) => number.to_string(),
        Token::Text(text) => String::from_utf8_lossy(text).into_owned(),
        Token::Sign(sign) => (*sign).to_owned(),
    };
    Fault::script(format!("`{shown}` is not known here"))
}

fn ended() -> Fault {
    Fault::script("it ends too early")
}

/// The tokens that are left, the next one last.
struct Parser {
    tokens: Vec<Token>,
    depth: usize,
}

impl Parser {
    fn next_is(&self, sign: &'static str) -> bool {
        self.tokens.last() == Some(&Token::Sign(sign))
    }

    fn next_word(&self) -> Option<&str> {
        match self.tokens.last() {
            Some(Token::Word(word)) => Some(word),
            _ => None,
        }
    }

    fn expect(&mut self, wanted: &Token) -> Result<(), Fault> {
        match self.tokens.pop() {
            Some(token) if token == *wanted => Ok(()),
            Some(token) => Err(unknown(&token)),
            None => Err(ended()),
        }
    }

    fn sign(&mut self, sign: &'static str) -> Result<(), Fault> {
        self.expect(&Token::Sign(sign))
    }

    fn word(&mut self, word: &str) -> Result<(), Fault> {
        self.expect(&Token::Word(word.to_owned()))
    }

    fn name(&mut self) -> Result<String, Fault> {
        match self.tokens.pop() {
            Some(Token::Word(word)) if is_name(&word) => Ok(word),
            Some(token) => Err(unknown(&token)),
            None => Err(ended()),
        }
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.depth >= DEPTH {
            return Err(Fault::script("it is too deep"));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn block(&mut self) -> Result<Vec<Statement>, Fault> {
        self.deeper(|parser| {
            let mut statements = Vec::new();
            loop {
                match parser.next_word() {
                    None if parser.tokens.is_empty() => return Ok(statements),
                    Some("end") => return Ok(statements),
                    _ => statements.push(parser.statement()?),
                }
            }
        })
    }

    /// A block up to its `end`.
    fn body(&mut self, opens: &str) -> Result<Vec<Statement>, Fault> {
        self.word(opens)?;
        let block = self.block()?;
        self.word("end")?;
        Ok(block)
    }

    fn statement(&mut self) -> Result<Statement, Fault> {
        match self.next_word() {
            Some("local") => {
                self.tokens.pop();
                let name = self.name()?;
                self.sign("=")?;
                Ok(Statement::Local(name, self.expression()?))
            }
            Some("if") => {
                self.tokens.pop();
                let condition = self.expression()?;
                Ok(Statement::If(condition, self.body("then")?))
            }
            Some("while") => {
                self.tokens.pop();
                let condition = self.expression()?;
                Ok(Statement::While(condition, self.body("do")?))
            }
            Some("for") => {
                self.tokens.pop();
                let name = self.name()?;
                self.sign("=")?;
                let first = self.expression()?;
                self.sign(",")?;
                let last = self.expression()?;
                Ok(Statement::For(name, first, last, self.body("do")?))
            }
            Some("return") => {
                self.tokens.pop();
                let nothing = matches!(self.next_word(), Some("end")) || self.tokens.is_empty();
                let returned = if nothing { None } else { Some(self.expression()?) };
                // Lua has it last in its block.
                match self.tokens.last() {
                    None => Ok(Statement::Return(returned)),
                    Some(Token::Word(word)) if word == "end" => Ok(Statement::Return(returned)),
                    Some(token) => Err(unknown(token)),
                }
            }
            Some("redis.call") => Ok(Statement::Do(self.primary()?)),
            _ => {
                let name = self.name()?;
                self.sign("=")?;
                Ok(Statement::Set(name, self.expression()?))
            }
        }
    }

    fn expression(&mut self) -> Result<Expression, Fault> {
        self.deeper(|parser| parser.chain(0))
    }

    /// Operators of one rank after another, each with what binds tighter on both sides.
    fn chain(&mut self, rank: usize) -> Result<Expression, Fault> {
        const RANKS: [&[(&str, Operator)]; 4] = [
            &[("or", Operator::Or)],
            &[("and", Operator::And)],
            &[("==", Operator::Equal), ("~=", Operator::Unequal), (">", Operator::Greater), ("<", Operator::Less)],
            &[("+", Operator::Plus), ("-", Operator::Minus)],
        ];
        let Some(operators) = RANKS.get(rank) else { return self.unary() };
        let mut left = self.chain(rank + 1)?;
        // Each step lies around the one before.
        for _ in 0..DEPTH {
            let is = |name: &str| match self.tokens.last() {
                Some(Token::Sign(sign)) => *sign == name,
                Some(Token::Word(word)) => word == name,
                _ => false,
            };
            let Some((_, operator)) = operators.iter().find(|(name, _)| is(name)) else { return Ok(left) };
            self.tokens.pop();
            left = Expression::Two(*operator, Box::new((left, self.chain(rank + 1)?)));
        }
        Err(Fault::script("it is too deep"))
    }

    fn unary(&mut self) -> Result<Expression, Fault> {
        if self.next_is("-") {
            self.tokens.pop();
            return Ok(Expression::Negative(Box::new(self.deeper(Self::unary)?)));
        }
        if self.next_is("#") {
            self.tokens.pop();
            return match self.tokens.pop() {
                Some(Token::Word(word)) if word == "KEYS" => Ok(Expression::Length(Given::Keys)),
                Some(Token::Word(word)) if word == "ARGV" => Ok(Expression::Length(Given::Arguments)),
                Some(Token::Word(word)) if is_name(&word) => Ok(Expression::Size(Box::new(Expression::Name(word)))),
                Some(token) => Err(unknown(&token)),
                None => Err(ended()),
            };
        }
        self.primary()
    }

    fn primary(&mut self) -> Result<Expression, Fault> {
        let token = self.tokens.pop().ok_or_else(ended)?;
        match token {
            Token::Number(number) => Ok(Expression::Value(Value::Number(number))),
            Token::Text(text) => Ok(Expression::Value(Value::Text(text))),
            Token::Sign("(") => {
                let inner = self.expression()?;
                self.sign(")")?;
                Ok(inner)
            }
            Token::Word(word) => match &*word {
                "nil" => Ok(Expression::Value(Value::Nil)),
                "true" => Ok(Expression::Value(Value::Bool(true))),
                "false" => Ok(Expression::Value(Value::Bool(false))),
                "KEYS" | "ARGV" => {
                    let given = if word == "KEYS" { Given::Keys } else { Given::Arguments };
                    self.sign("[")?;
                    let place = self.expression()?;
                    self.sign("]")?;
                    Ok(Expression::Given(given, Box::new(place)))
                }
                "tonumber" => {
                    let mut arguments = self.arguments()?;
                    match (arguments.pop(), arguments.is_empty()) {
                        (Some(one), true) => Ok(Expression::ToNumber(Box::new(one))),
                        _ => Err(Fault::script("`tonumber` takes one value")),
                    }
                }
                "redis.call" => Ok(Expression::Call(self.arguments()?)),
                name if is_name(name) => Ok(Expression::Name(word)),
                _ => Err(unknown(&Token::Word(word))),
            },
            token => Err(unknown(&token)),
        }
    }

    fn arguments(&mut self) -> Result<Vec<Expression>, Fault> {
        self.sign("(")?;
        let mut arguments = vec![self.expression()?];
        while self.next_is(",") {
            self.tokens.pop();
            arguments.push(self.expression()?);
        }
        self.sign(")")?;
        Ok(arguments)
    }
}

fn is_name(word: &str) -> bool {
    !word.contains('.') && !RESERVED.contains(&word) && !["KEYS", "ARGV", "tonumber"].contains(&word)
}
