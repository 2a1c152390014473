#include "bilevel/version.h"

namespace bilevel {

const char* Version() { return BILEVEL_VERSION; }

}  // namespace bilevel
