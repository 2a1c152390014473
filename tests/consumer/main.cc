#include <iostream>

#include "bilevel/version.h"

int main() { std::cout << "bilevel " << bilevel::Version() << "\n"; }
