package tui

import (
	"fmt"
	"slices"
	"strings"

	"github.com/starling-chat/starling/node/api"
)

// languages are the catalogue's, in the order of its columns.
var languages = []string{"en", "zh"}

// catalog translates keys. A key that is missing shows as itself, which a test keeps from happening.
type catalog struct{ column int }

func newCatalog(language string) catalog {
	return catalog{max(0, slices.Index(languages, language))}
}

// pickLanguage follows the explicit choice, then the setting, then the locale.
func pickLanguage(explicit, setting string, environ []string) string {
	for _, l := range []string{explicit, setting} {
		if slices.Contains(languages, l) {
			return l
		}
	}
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if v := lookup(environ, name); v != "" {
			if strings.HasPrefix(v, "zh") {
				return "zh"
			}
			return "en"
		}
	}
	return "en"
}

func (c catalog) text(key string, args ...any) string {
	s := key
	if row, ok := phrases[key]; ok {
		s = row[c.column]
	}
	if len(args) > 0 {
		return fmt.Sprintf(s, args...)
	}
	return s
}

// trust is a state of trust in words.
func (m *model) trust(state string) string {
	switch state {
	case api.TrustVerified:
		return m.t("trust verified")
	case api.TrustChanged:
		return m.t("trust changed")
	case api.TrustUnverified, "":
		return m.t("trust unverified")
	}
	return m.name(state)
}

// standing is the state of a contact in words.
func (m *model) standing(state string) string {
	switch state {
	case "contact":
		return m.t("is contact")
	case "request":
		return m.t("is request")
	case "asked":
		return m.t("is asked")
	case "blocked":
		return m.t("is blocked")
	}
	return m.name(state)
}

// phrases holds every text of the UI, in the order of languages. A verb stands for the same argument
// in each. "cmd" keys are the commands' help: the form, a tab, and what it does.
var phrases = map[string][2]string{
	"no conversation": {"no conversation yet: type /join #lobby", "还没有会话：输入 /join #lobby"},
	"empty":           {"nothing was said here yet", "这里还没有消息"},
	"loading":         {"loading…", "正在加载…"},
	"beginning":       {"the beginning of what is here", "本机记录的开头"},
	"new messages":    {"new", "新消息"},
	"asking older":    {"-- asking the others for what is older… --", "-- 正在向其他人请求更早的消息… --"},
	"split":           {"%s is in islands: what %s say comes late, and the node works on joining them", "%s 已分裂：%s 的消息会晚到，节点正在设法重新连接"},
	"more below":      {"-- older messages; End goes to the newest --", "-- 正在看较早的消息；按 End 回到最新 --"},
	"deleted":         {"(deleted)", "（已删除）"},
	"edited":          {"(edited)", "（已编辑）"},
	"back-dated":      {"(its clock is not to be trusted)", "（其时间不可信）"},
	"unknown kind":    {"something by %s needs a newer version of starling", "%s 的一条内容需要更新版本的 starling"},
	"joined":          {"%s joined", "%s 加入"},
	"left":            {"%s left", "%s 离开"},
	"is now":          {"%s is now known as %s", "%s 现在叫 %s"},
	"set topic":       {"%s set the topic: %s", "%s 将主题设为：%s"},
	"removed topic":   {"%s removed the topic", "%s 移除了主题"},
	"and others":      {"%s and %d more", "%s 等，另有 %d 人"},
	"gap":             {"%d missing by %s, being fetched", "缺少 %[2]s 的 %[1]d 条消息，正在获取"},
	"typing":          {"%s is typing…", "%s 正在输入…"},
	"state failed":    {"not delivered: %s", "未送达：%s"},
	"members":         {"members %d, here %d", "成员 %d，在线 %d"},
	"seen connected":  {"members %d, connected %d", "成员 %d，已连接 %d"},
	"is muted":        {"muted", "已静音"},
	"online":          {"here", "在线"},
	"offline":         {"not here", "不在线"},
	"you":             {"you", "你"},
	"policy":          {"%s: %s", "%s：%s"},

	"trust verified":   {"verified", "已验证"},
	"trust unverified": {"not verified", "未验证"},
	"trust changed":    {"KEY CHANGED", "密钥已变"},
	"is contact":       {"contact", "联系人"},
	"is request":       {"asks", "请求中"},
	"is asked":         {"asked", "已询问"},
	"is blocked":       {"blocked", "已屏蔽"},

	"node gone":              {"the node does not answer: your text is kept, and it goes on by itself when the node is back", "节点没有响应：文字已保留，节点恢复后会自动继续"},
	"detached":               {"no node", "无节点"},
	"not sent":               {"the node does not answer; nothing was sent and your text stays here", "节点没有响应；未发送，文字保留在此"},
	"waiting to be accepted": {"%d messages wait for the node", "%d 条消息在等待节点"},
	"alone":                  {"not connected: nobody found yet", "未连接：尚未找到任何人"},
	"starting":               {"not connected: the node is starting", "未连接：节点正在启动"},
	"no network":             {"not connected: this machine has no network", "未连接：本机没有网络"},
	"no relay":               {"not connected: no relay answers", "未连接：没有中继响应"},
	"peers":                  {"peers %d", "连接 %d"},
	"on the lan":             {"%d lan", "局域网 %d"},
	"direct":                 {"%d direct", "直连 %d"},
	"punched":                {"%d punched", "打洞 %d"},
	"relayed":                {"%d relayed", "中继 %d"},
	"outbox":                 {"outbox %d", "待发 %d"},
	"gaps":                   {"gaps %d", "缺口 %d"},
	"active":                 {"Act: %s", "活动：%s"},
	"disk full":              {"the disk is full or not writable: nothing new can be kept; free some space", "磁盘已满或不可写：无法保存新内容，请释放空间"},
	"no history":             {"the history cannot be opened: what is said now is not kept", "无法打开历史记录：现在的内容不会保存"},
	"disk low":               {"the disk has only %d MiB left", "磁盘仅剩 %d MiB"},
	"clock":                  {"this machine's clock is wrong by about %s: set it (timedatectl set-ntp true)", "本机时钟误差约 %s：请校时（timedatectl set-ntp true）"},
	"newer version":          {"something came that needs a newer version of starling", "收到需要更新版本 starling 的内容"},

	"press again":     {"press Ctrl+C again to quit", "再按一次 Ctrl+C 退出"},
	"cleared":         {"cleared; Up brings it back", "已清空；按上方向键可恢复"},
	"too long":        {"that is %d KiB of text, a message holds 16: nothing was pasted", "文字有 %d KiB，一条消息最多 16 KiB：未粘贴"},
	"over the limit":  {"too long: %d of %d bytes; send it in parts", "过长：%d / %d 字节；请分段发送"},
	"unknown command": {"unknown command /%s", "未知命令 /%s"},
	"did you mean":    {"; did you mean /%s?", "；是否想输入 /%s？"},
	"see help":        {"; /help lists them, //text sends it as it is", "；用 /help 查看列表，//文本 可照原样发送"},
	"usage":           {"%s: %s", "%s：%s"},
	"done":            {"done", "完成"},
	"all read":        {"everything is read", "全部已读"},
	"sent to":         {"sent to %s", "已发送给 %s"},
	"nick set":        {"you are %s now", "你现在叫 %s"},
	"only in rooms":   {"that is for rooms", "该命令用于房间"},
	"no topic":        {"%s has no topic; /topic text sets one", "%s 没有主题；/topic 文本 可设置"},
	"left room":       {"left %s; its history stays here", "已离开 %s；历史仍保留在本机"},
	"part direct":     {"%s is no room: /ignore blocks somebody, /mute keeps them quiet", "%s 不是房间：/ignore 屏蔽，/mute 静音"},
	"no message":      {"no such message here", "这里没有这条消息"},
	"not yours":       {"that is not your message", "这不是你的消息"},
	"nothing unread":  {"nothing here was unread", "这里没有未读消息"},
	"replying":        {"reply to %s  (Esc: no reply)", "回复 %s  （Esc 取消）"},
	"editing":         {"editing your message; Enter changes it, Esc leaves it as it is", "正在编辑你的消息；Enter 修改，Esc 放弃"},
	"reply to which":  {"reply to which", "回复哪一条"},
	"react to which":  {"react to which", "回应哪一条"},
	"delete question": {"Ask everybody to delete \"%s\"? (y/n) Who has seen it may keep it.", "请求所有人删除“%s”？（y/n）看过的人仍可能保留。"},
	"muted":           {"%s is muted", "%s 已静音"},
	"unmuted":         {"%s notifies again", "%s 恢复通知"},
	"setting":         {"%s is %s", "%s：%s"},
	"settings":        {"/set theme dark|light|none, lang en|zh, bell on|off, links on|off, typing on|off, receipts on|off", "/set theme dark|light|none，lang en|zh，bell on|off，links on|off，typing on|off，receipts on|off"},
	"contact added":   {"%s is a contact now", "%s 已成为联系人"},
	"request":         {"%s wants to write to you. /accept to answer, /reject to drop it (they are not told), /ignore to block", "%s 想与你对话。/accept 接受，/reject 丢弃（对方不会知道），/ignore 屏蔽"},
	"answer request":  {"Writing to %s accepts the request. Send? (y/n)", "给 %s 回信即表示接受请求。发送？（y/n）"},
	"key changed":     {"the key of %s changed: a new device, or somebody else. /verify compares keys", "%s 的密钥已变：可能是新设备，也可能是他人。用 /verify 核对"},
	"paste question":  {"Send %d lines as one message? (y: send, e: keep editing, n: drop)", "将 %d 行作为一条消息发送？（y 发送，e 继续编辑，n 丢弃）"},
	"close":           {"Esc closes", "Esc 关闭"},
	"page":            {"%d of %d lines, PgDn", "%d / %d 行，PgDn 翻页"},
	"picker keys":     {"Up/Down, Enter, Esc closes", "上/下，Enter 选择，Esc 关闭"},
	"enter searches":  {"Enter searches", "按 Enter 搜索"},
	"switch":          {"go to", "前往"},
	"everywhere":      {"everywhere", "全部会话"},
	"search":          {"search %s", "搜索 %s"},
	"no hits":         {"nothing found", "没有找到"},
	"nothing":         {"nothing", "无"},
	"checking":        {"checking…", "正在检查…"},
	"help title":      {"help", "帮助"},
	"peers title":     {"peers", "连接"},
	"doctor title":    {"doctor", "诊断"},
	"outbox title":    {"outbox: what nobody has confirmed yet", "待发送：尚未确认的消息"},
	"outbox keys":     {"r: try now  c: cancel", "r 立即重试  c 取消"},
	"attempts":        {"%s, %d attempts", "%s，已试 %d 次"},
	"next attempt":    {"next at %s", "下次 %s"},
	"status title":    {"status", "状态"},
	"names title":     {"members of %s", "%s 的成员"},
	"contacts title":  {"contacts", "联系人"},
	"contact keys":    {"Enter: talk  a: accept  r: reject  b: block  v: verify", "Enter 对话  a 接受  r 拒绝  b 屏蔽  v 验证"},
	"whois title":     {"who is", "查询"},
	"verify title":    {"is it %s?", "是 %s 吗？"},
	"verify keys":     {"y: they are equal  n: they are not", "y 一致  n 不一致"},
	"invite title":    {"invite", "邀请"},
	"invites title":   {"invites", "邀请列表"},
	"invite keys":     {"r: revoke", "r 撤销"},
	"invite until":    {"until %s", "有效至 %s"},
	"invite once":     {"for one person", "仅限一人"},
	"invite used":     {"used", "已使用"},
	"invite sent":     {"an invite into %s goes to %s", "已将 %s 的邀请发给 %s"},
	"room created":    {"%s is yours: only who is invited gets in. /invite @who sends somebody a link", "%s 已创建：只有受邀者能进入。/invite @某人 可发送链接"},
	"public room":     {"that is for private rooms (/create makes one): a public room has no owner, and who knows its name is in. /ignore @who hides somebody from you", "该命令用于私有房间（/create 可创建）：公开房间没有主人，知道名字就能进入。/ignore @某人 可对你隐藏此人"},
	"remove question": {"Take %s out of %s? (y/n) They keep what they have seen; the room gets a new key.", "将 %s 移出 %s？（y/n）对方保留已看过的内容；房间会更换密钥。"},
	"ban question":    {"Ban %s from %s? (y/n) Nobody can admit them again until /unban.", "在 %[2]s 封禁 %[1]s？（y/n）在 /unban 之前任何人都不能再让其加入。"},
	"let in":          {"you are in %s: %s", "你已进入 %s：%s"},
	"pending":         {"waiting to be admitted: a member with the right has to be met", "等待准入：需要遇到有权限的成员"},
	"keyless":         {"waiting for the room's new key; nothing can be sent until it is here", "等待房间的新密钥；收到之前无法发送"},
	"was removed":     {"you are not a member any more; what was said before stays here", "你已不是成员；之前的内容仍保留在此"},
	"raw title":       {"a message as it came", "消息原样"},
	"history title":   {"history of %s", "%s 的历史"},
	"compare":         {"Compare these numbers with %s, in person or in a call that you trust. They are the same for both of you, unless somebody sits between.", "请当面或在可信的通话中与 %s 核对这些数字。双方看到的应当相同，除非有人在中间。"},
	"trust now":       {"now: %s", "当前：%s"},
	"invite room":     {"Whoever has this link can join %s and find you:", "持有此链接者可加入 %s 并找到你："},
	"invite me":       {"Whoever has this link can write to you:", "持有此链接者可以写信给你："},
	"no qr":           {"(too long for a QR code)", "（过长，无法生成二维码）"},
	"qr too big":      {"(the QR code needs a window of %d by %d)", "（二维码需要 %d 列 %d 行的窗口）"},
	"too small":       {"the window is too small: make it at least %d by %d", "窗口太小：请至少调整到 %d 列 %d 行"},
	"a relay":         {"(relay)", "（中继）"},
	"keys plain":      {"the keys have no passphrase: who can read your files can be you", "密钥没有口令：能读到你文件的人就能冒充你"},
	"keys protected":  {"the keys are under a passphrase", "密钥有口令保护"},
	"status program":  {"version %s, network %s, home %s", "版本 %s，网络 %s，目录 %s"},
	"status peers":    {"peers %d: lan %d, direct %d, punched %d, relayed %d; reachability %s", "连接 %d：局域网 %d，直连 %d，打洞 %d，中继 %d；可达性 %s"},
	"status chat":     {"rooms %d, unread %d, outbox %d, gaps %d", "房间 %d，未读 %d，待发 %d，缺口 %d"},
	"status away":     {"while you are away: %d mailboxes keep messages for you", "离线期间：%d 个信箱为你代存消息"},
	"status lost":     {"while you are away: no mailbox keeps messages for you; who writes then waits until both are there", "离线期间：没有信箱为你代存消息；对方的消息需等双方同时在线"},
	"status disk":     {"storage %s, %d messages, %d MiB free", "存储 %s，消息 %d 条，剩余 %d MiB"},
	"status traffic":  {"gossip: %d published, %d delivered, %d dropped; %d KiB in, %d KiB out", "广播：发布 %d，送达 %d，丢弃 %d；收 %d KiB，发 %d KiB"},
	"relay away":      {"relay, not connected", "中继，未连接"},
	"relay connected": {"relay, connected, forwards %d rooms", "中继，已连接，转发 %d 个房间"},
	"relay reserved":  {"relay, a place is reserved, forwards %d rooms", "中继，已预留位置，转发 %d 个房间"},
	"whois":           {"%s\nfingerprint %s\naccount %s\n%s", "%s\n指纹 %s\n账号 %s\n%s"},
	"whois petname":   {"you call them %s", "你称其为 %s"},
	"whois contact":   {"contact: %s", "联系人状态：%s"},
	"whois path":      {"connected: %s", "连接方式：%s"},
	"whois seen":      {"last seen %s", "最后出现 %s"},
	"whois rooms":     {"in %s", "所在房间 %s"},
	"raw":             {"id       %s\naccount  %s\ndevice   %s\nsent     %s\nnick     %s\n\n%d bytes of text:\n%s", "编号  %s\n账号  %s\n设备  %s\n发送  %s\n昵称  %s\n\n文本 %d 字节：\n%s"},

	"no away":     {"there is no away mark: the others see whether your node is connected and nothing else", "没有离开标记：别人只能看到你的节点是否在线"},
	"no upload":   {"files cannot be sent yet; a link can", "尚不支持发送文件；可以发送链接"},
	"no download": {"files cannot be received yet", "尚不支持接收文件"},

	"shell purge":     {"in a shell: `starling purge` takes what was deleted off the disk", "请在命令行中运行 `starling purge`：把已删除的内容从磁盘清除"},
	"shell export":    {"in a shell: `starling export ROOM > FILE` writes what is kept of a room", "请在命令行中运行 `starling export 房间 > 文件`：导出房间的记录"},
	"shell import":    {"in a shell: `starling import FILE` takes in what was exported", "请在命令行中运行 `starling import 文件`：导入已导出的记录"},
	"shell retention": {"in a shell: `starling retention [ROOM]` says, and sets, how much is kept", "请在命令行中运行 `starling retention [房间]`：查看或设置保留多少记录"},
	"shell backup":    {"in a shell: `starling backup create FILE` saves the account and what was said", "请在命令行中运行 `starling backup create 文件`：备份账号和记录"},
	"shell check":     {"in a shell: `starling check` verifies the store, and repairs it", "请在命令行中运行 `starling check`：检查并修复存储"},
}
